"""The training loop: from a method, batches and settings to a trained method, and nothing else."""

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import get_total_norm

from ..core import Batch, DivergenceError, Method, Progress, StepOutput, Task, trained_state
from ..core.keyed_random import bits, purpose
from . import checkpoint
from .evaluate import evaluate
from .log import Display, Meters, Silent
from .nonfinite import find_nonfinite_term
from .optimizer import (
    EMA,
    build_optimizer,
    learning_rate,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)
from .run_directory import RunDirectory
from .settings import TrainingSettings
from .signals import Interrupted, Signals
from .state import ema_weights, restore_method, split_student, student_prefix

_STEP = purpose("step")


class Batches(Protocol):
    """Training batches of this process, addressable by epoch and step."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Batch]]:
        """From step `start` of an epoch: the batches whose gradients make one optimizer step."""


class Trainer:
    """One run: `run()` trains from where the directory's newest checkpoint stands to the end.

    Args:
        fabric: launched; devices, precision and processes.
        method: what is trained.
        task: what the labels mean.
        train: batches to learn from.
        val: batches to judge each epoch by, or None.
        settings: how to train.
        directory: held by the caller.
        display: who is told.
    """

    def __init__(
        self,
        fabric: Fabric,
        method: Method,
        task: Task,
        train: Batches,
        val: Iterable[Batch] | None,
        settings: TrainingSettings,
        directory: RunDirectory,
        display: Display | None = None,
    ) -> None:
        self.fabric, self.method, self.task, self.settings = fabric, method, task, settings
        self.train, self.val, self.directory = train, val, directory
        self.display = display or Silent()
        self.total = settings.epochs * train.steps_per_epoch
        self.meters, self.at, self.signals = Meters(), 0, Signals()
        self.diagnosed: set[str] = set()  # what the user has heard of need not be said each epoch
        if settings.channels_last:
            method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if settings.compile:
            method.compile()
        self.wrapped, self.optimizer = fabric.setup(method, build_optimizer(method, settings))
        self.average = EMA(trained_state(method), settings.ema) if settings.ema else None
        self.metric = task.train_metric().to(fabric.device)  # making one anew takes milliseconds
        self.zero = torch.zeros((), device=fabric.device)
        self.clock = time.perf_counter()
        self.images = 0

    def run(self) -> None:
        """Train to the last epoch.

        Raises:
            DivergenceError: a loss or gradient is not finite; the optimizer did not move.
            Interrupted: SIGTERM or SIGINT came; a checkpoint was saved.
        """
        self.resume()
        self.method.train()
        with self.signals.caught():
            while self.at < self.total:
                epoch, start = divmod(self.at, self.train.steps_per_epoch)
                for micro_batches in self.train.epoch(epoch, start):
                    self.step(epoch, micro_batches)
                    # The last step of an epoch is followed by its end, come what may: a
                    # checkpoint between the two would leave the epoch without one.
                    if self._asked_to_stop() and self.at % self.train.steps_per_epoch:
                        self.save()
                        raise Interrupted(self.signals.asked)
                self.end_epoch(epoch)
                if self._asked_to_stop():
                    raise Interrupted(self.signals.asked)

    def step(self, epoch: int, micro_batches: list[Batch]) -> None:
        """One optimizer step."""
        settings = self.settings
        progress = self._progress(epoch)
        # Dropout draws from the global generator: keyed by the step, it needs no saving.
        torch.manual_seed(int(bits(_STEP, settings.seed, self.at, self.fabric.global_rank)))
        set_learning_rate(
            self.optimizer,
            learning_rate(settings, self.at, self.train.steps_per_epoch, self.method.cycles),
        )
        steps: list[StepOutput] = []
        for place, batch in enumerate(micro_batches, 1):
            syncs = place == len(micro_batches)
            with self.fabric.no_backward_sync(self.wrapped, enabled=not syncs):
                steps.append(self.wrapped(batch, progress))
                self.fabric.backward(steps[-1].total / len(micro_batches))
            self.meters.add(steps[-1])
            self.images += len(batch.indices) * self.fabric.world_size
        norm = self._checked_norm(steps, micro_batches, progress)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.method.after_step(progress)
        if self.average:
            self.average.update(trained_state(self.method))
        self.at += 1
        self.display.advance(self.at, self.total)
        if self.at % settings.log_every == 0 or self.at == self.total:
            self._log_step(epoch, steps[-1], micro_batches[-1], norm)
        every = settings.save_every
        if every and self.at % every == 0 and self.at % self.train.steps_per_epoch:
            self.save()

    def end_epoch(self, epoch: int) -> None:
        """Judge, log, warn and save."""
        entry: dict[str, Any] = {"kind": "epoch", "epoch": epoch, "step": self.at}
        entry |= {kind: self._gathered(m.means()) for kind, m in self.meters.epoch.items()}
        for meter in self.meters.epoch.values():
            meter.reset()
        self._share_statistics()
        due = (epoch + 1) % self.settings.val_every == 0 or self.at == self.total
        if self.val is not None and due:
            with self.ema_weights():
                entry["val"] = evaluate(self.fabric, self.method, self.task, self.val)
        self.method.after_epoch(self.val or ())
        if self.fabric.is_global_zero:
            self.directory.log(entry)
            self.display.epoch(entry)
            if self.at >= max(self.total // 5, 2 * self.train.steps_per_epoch):
                for subject, sentence in self.method.diagnose(entry["monitors"]).items():
                    if subject not in self.diagnosed:
                        self.display.say(f"epoch {epoch + 1}: {subject} {sentence}")
                    self.diagnosed.add(subject)
        self.save()

    def ema_weights(self) -> AbstractContextManager[None]:
        """Inside, the method has its averaged weights, if the run keeps them."""
        return ema_weights(self.method, self.average)

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        self._share_statistics()
        if self.fabric.is_global_zero:
            tensors = split_student(self.method, trained_state(self.method))
            tensors["optimizer"] = optimizer_tensors(self.optimizer, self.method)
            if self.average:
                tensors["average"] = self.average.state
            state = {
                "step": self.at,
                "student": student_prefix(self.method),
                "epoch": self.at // self.train.steps_per_epoch,
                "finished": self.at == self.total,
                "meters": self.meters.state(),
                "scaler": self.fabric.strategy.precision.state_dict(),
            }
            checkpoint.save(self.directory.checkpoints, checkpoint.Checkpoint(tensors, state))
        self.fabric.barrier()

    def resume(self) -> None:
        """Go on from the newest whole checkpoint, if there is one."""
        found = checkpoint.newest(self.directory.checkpoints)
        step = found.state["step"] if found else 0
        if self.fabric.is_global_zero:
            self.directory.rewind(step)
        if found is None:
            return
        restore_method(self.method, found)
        restore_optimizer(self.optimizer, self.method, found.tensors["optimizer"])
        if self.average:
            saved = found.tensors["average"]
            self.average.state = {n: saved[n].to(t) for n, t in self.average.state.items()}
        self.meters.restore(found.state["meters"], self.zero)
        self.fabric.strategy.precision.load_state_dict(found.state["scaler"])
        self.at = step
        self.display.say(f"going on from step {step} of {self.total}")

    def _share_statistics(self) -> None:
        """Give every process the mean of all processes' BatchNorm statistics."""
        if self.fabric.world_size == 1:
            return
        norms = [n for n, m in self.method.named_modules() if isinstance(m, _BatchNorm)]
        states = [dict(self.method.named_buffers()), self.average.state if self.average else {}]
        for name in (f"{n}.running_{stat}" for n in norms for stat in ("mean", "var")):
            for state in states:
                if name in state:
                    mean = self.fabric.all_reduce(state[name], reduce_op="mean")
                    state[name].copy_(cast(Tensor, mean))

    def _progress(self, epoch: int) -> Progress:
        def number(value: int) -> Tensor:
            return torch.full((), value, dtype=torch.int64, device=self.fabric.device)

        numbers = self.settings.seed, epoch, self.at, self.total
        return Progress(*map(number, numbers))

    def _checked_norm(
        self, steps: list[StepOutput], batches: list[Batch], progress: Progress
    ) -> Tensor:
        """The norm of the gradient, which is also clipped if asked for; not finite raises."""
        if self.settings.clip:
            clipped = self.fabric.clip_gradients(
                self.wrapped,
                self.optimizer,
                max_norm=self.settings.clip,
                error_if_nonfinite=False,
            )
            norm = cast(Tensor, clipped)
        else:
            norm = get_total_norm(p.grad for p in self.method.parameters() if p.grad is not None)
        # The scaler of fp16 meets infinite gradients as a matter of course and skips their steps.
        proof = sum((step.total for step in steps), start=self.zero)
        proof = proof if self.settings.precision == "fp16" else proof + norm
        if not torch.isfinite(proof.detach()).item():
            culprit = find_nonfinite_term(self.method, steps, batches, progress)
            raise DivergenceError(f"{culprit} at step {self.at}; {_WAY_OUT}")
        return norm

    def _log_step(self, epoch: int, step: StepOutput, batch: Batch, norm: Tensor) -> None:
        elapsed, self.clock = time.perf_counter() - self.clock, time.perf_counter()
        entry: dict[str, Any] = {"kind": "step", "step": self.at, "epoch": epoch}
        entry["lr"] = self.optimizer.param_groups[0]["lr"]
        entry |= {kind: self._gathered(m.means()) for kind, m in self.meters.window.items()}
        for meter in self.meters.window.values():
            meter.reset()
        self.metric.reset()
        with torch.no_grad():
            self.metric.update(step.outputs, batch.targets)
        entry["train"] = {name: float(v) for name, v in self.metric.compute().items()}
        entry |= {"grad_norm": float(norm), "images_per_second": self.images / elapsed}
        self.images = 0
        if self.fabric.is_global_zero:
            self.directory.log(entry)
            self.display.step(entry, self.total)

    def _gathered(self, means: dict[str, float]) -> dict[str, float]:
        if self.fabric.world_size == 1 or not means:
            return means
        mine = torch.tensor(list(means.values()), dtype=torch.float64, device=self.fabric.device)
        mean = cast(Tensor, self.fabric.all_reduce(mine, reduce_op="mean"))
        return dict(zip(means, mean.tolist(), strict=True))

    def _asked_to_stop(self) -> bool:
        if self.fabric.world_size > 1:  # all processes must leave the loop at the same step
            asked = torch.tensor(self.signals.asked, device=self.fabric.device)
            highest = self.fabric.all_reduce(asked, reduce_op="max")
            self.signals.asked = int(cast(Tensor, highest))
        return bool(self.signals.asked)


_WAY_OUT = "the optimizer did not move: try a lower --lr, a --warmup, --clip 1 or fp32"
