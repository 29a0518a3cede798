"""The training loop: from a method, batches and settings to a trained method."""

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
from .callback import Callback
from .evaluate import evaluate
from .meters import Meters
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
_SETTLING_STEPS = 500  # a critic is at chance until it has learned


class Batches(Protocol):
    """Training batches of this process, addressed by epoch and step."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Batch]]:
        """Micro-batches of each optimizer step of an epoch, from step `start` on."""


class Trainer:
    """One run: `run()` trains from the directory's newest checkpoint, or the start, to the end.

    Args:
        fabric: launched; it sets devices, precision and processes.
        method: trained in place.
        task: evaluates the method's outputs.
        train_batches: training batches of this process.
        val_batches: validation batches of this process, or None.
        settings: hyperparameters and intervals.
        directory: locked by the caller.
        callback: observes the run; None is nobody.
    """

    def __init__(
        self,
        fabric: Fabric,
        method: Method,
        task: Task,
        train_batches: Batches,
        val_batches: Iterable[Batch] | None,
        settings: TrainingSettings,
        directory: RunDirectory,
        callback: Callback | None = None,
    ) -> None:
        self.fabric, self.method, self.task, self.settings = fabric, method, task, settings
        self.train_batches, self.val_batches = train_batches, val_batches
        self.directory, self.callback = directory, callback or Callback()
        self.global_step, self.total_steps = 0, settings.epochs * train_batches.steps_per_epoch
        self.meters, self.signals = Meters(), Signals()
        self.reported_monitors: set[str] = set()  # a warning about each is given once a run
        if settings.channels_last:
            method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if settings.compile:
            method.compile()
        optimizer = build_optimizer(method, settings)
        self.wrapped_method, self.optimizer = fabric.setup(method, optimizer)
        self.ema = EMA(trained_state(method), settings.ema_decay) if settings.ema_decay else None
        self.train_metric = task.train_metric().to(fabric.device)  # constructing it is slow
        self.zero = torch.zeros((), device=fabric.device)
        self.last_log_time, self.images_since_log = time.perf_counter(), 0

    def run(self) -> None:
        """Train to the last epoch.

        Raises:
            DivergenceError: a loss or gradient is not finite; the optimizer did not move.
            Interrupted: SIGTERM or SIGINT came; a checkpoint was saved.
        """
        self.resume()
        self.method.train()
        with self.signals.caught():
            while self.global_step < self.total_steps:
                epoch, start = divmod(self.global_step, self.train_batches.steps_per_epoch)
                for micro_batches in self.train_batches.epoch(epoch, start):
                    self.step(epoch, micro_batches)
                    # After the last step of an epoch always comes `end_epoch`: a run resumed from
                    # a checkpoint between the two would skip it.
                    if self._stop_requested() and not self._epoch_complete():
                        self.save()
                        raise Interrupted(self.signals.signal_number)
                self.end_epoch(epoch)
                if self._stop_requested():
                    raise Interrupted(self.signals.signal_number)

    def step(self, epoch: int, micro_batches: list[Batch]) -> None:
        """One optimizer step."""
        settings = self.settings
        progress = self._progress(epoch)
        # Dropout draws from the global generator: seeded by the step, its state needs no saving.
        key = _STEP, settings.seed, self.global_step, self.fabric.global_rank
        torch.manual_seed(int(bits(*key)))
        steps_per_epoch, cycles = self.train_batches.steps_per_epoch, self.method.cycles
        rate = learning_rate(settings, self.global_step, steps_per_epoch, cycles)
        set_learning_rate(self.optimizer, rate)
        steps: list[StepOutput] = []
        for number, batch in enumerate(micro_batches, 1):
            last = number == len(micro_batches)
            with self.fabric.no_backward_sync(self.wrapped_method, enabled=not last):
                steps.append(self.wrapped_method(batch, progress))
                self.fabric.backward(steps[-1].total / len(micro_batches))
            self.meters.add(steps[-1])
            self.images_since_log += len(batch.indices) * self.fabric.world_size
        norm = self._checked_norm(steps, micro_batches, progress)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.method.after_step(progress)
        if self.ema:
            self.ema.update(trained_state(self.method))
        self.global_step += 1
        self.callback.on_step(self.global_step, self.total_steps)
        if self.global_step % settings.log_every_steps == 0 or self.global_step == self.total_steps:
            self._log_step(epoch, steps[-1], micro_batches[-1], norm)
        interval = settings.save_every_steps
        if interval and self.global_step % interval == 0 and not self._epoch_complete():
            self.save()

    def end_epoch(self, epoch: int) -> None:
        """Evaluate, log, warn about monitors and save."""
        entry: dict[str, Any] = {"kind": "epoch", "epoch": epoch, "step": self.global_step}
        entry |= {kind: self._process_mean(m.means()) for kind, m in self.meters.epoch.items()}
        for meter in self.meters.epoch.values():
            meter.reset()
        self._average_batchnorm_statistics()
        due = (
            epoch + 1
        ) % self.settings.val_every_epochs == 0 or self.global_step == self.total_steps
        if self.val_batches is not None and due:
            with self.ema_weights():
                entry["val"] = evaluate(self.fabric, self.method, self.task, self.val_batches)
        self.method.after_epoch(self.val_batches or ())
        if self.fabric.is_global_zero:
            self.directory.log(entry)
            self.callback.on_epoch(entry)
            self._report_diagnosis(epoch, entry["monitors"])
        self.save()

    def ema_weights(self) -> AbstractContextManager[None]:
        """Context in which the method has its averaged weights, if the run keeps them."""
        return ema_weights(self.method, self.ema)

    def save(self) -> None:
        """Write a checkpoint of the current step."""
        self._average_batchnorm_statistics()
        if self.fabric.is_global_zero:
            tensors = split_student(self.method, trained_state(self.method))
            tensors["optimizer"] = optimizer_tensors(self.optimizer, self.method)
            if self.ema:
                tensors["ema"] = self.ema.state
            state = {
                "step": self.global_step,
                "student": student_prefix(self.method),
                "epoch": self.global_step // self.train_batches.steps_per_epoch,
                "finished": self.global_step == self.total_steps,
                "meters": self.meters.state(),
                "scaler": self.fabric.strategy.precision.state_dict(),
            }
            checkpoint.save(self.directory.checkpoints, checkpoint.Checkpoint(tensors, state))
        self.fabric.barrier()

    def resume(self) -> None:
        """Restore the newest intact checkpoint, if there is one."""
        newest = checkpoint.newest(self.directory.checkpoints)
        step = newest.state["step"] if newest else 0
        if self.fabric.is_global_zero:
            self.directory.rewind(step)
        if newest is None:
            return
        restore_method(self.method, newest)
        restore_optimizer(self.optimizer, self.method, newest.tensors["optimizer"])
        if self.ema:
            saved = newest.tensors["ema"]
            self.ema.state = {n: saved[n].to(t) for n, t in self.ema.state.items()}
        self.meters.restore(newest.state["meters"], self.zero)
        self.fabric.strategy.precision.load_state_dict(newest.state["scaler"])
        self.global_step = step
        self.callback.on_message(f"going on from step {step} of {self.total_steps}")

    def _epoch_complete(self) -> bool:
        return self.global_step % self.train_batches.steps_per_epoch == 0

    def _report_diagnosis(self, epoch: int, monitors: dict[str, float]) -> None:
        """Warn once of each monitor, in a line a warning: after a fifth, two epochs, 500 steps."""
        settled = (self.total_steps // 5, 2 * self.train_batches.steps_per_epoch, _SETTLING_STEPS)
        if self.global_step < max(settled):
            return
        warned = self.method.diagnose(monitors)
        new = [name for name in warned if name not in self.reported_monitors]
        self.reported_monitors.update(new)
        for warning in dict.fromkeys(warned[name] for name in new):
            names = [name for name in new if warned[name] == warning]
            self.callback.on_message(f"epoch {epoch + 1}: {', '.join(names)}: {warning}")

    def _average_batchnorm_statistics(self) -> None:
        """Give every process the mean of all processes' BatchNorm statistics."""
        if self.fabric.world_size == 1:
            return
        norms = [n for n, m in self.method.named_modules() if isinstance(m, _BatchNorm)]
        states = [dict(self.method.named_buffers()), self.ema.state if self.ema else {}]
        for name in (f"{n}.running_{stat}" for n in norms for stat in ("mean", "var")):
            for state in states:
                if name in state:
                    mean = self.fabric.all_reduce(state[name], reduce_op="mean")
                    state[name].copy_(cast(Tensor, mean))

    def _progress(self, epoch: int) -> Progress:
        def number(value: int) -> Tensor:
            return torch.full((), value, dtype=torch.int64, device=self.fabric.device)

        numbers = self.settings.seed, epoch, self.global_step, self.total_steps
        return Progress(*map(number, numbers))

    def _checked_norm(
        self, steps: list[StepOutput], batches: list[Batch], progress: Progress
    ) -> Tensor:
        """The gradient's norm before clipping; a non-finite loss or gradient raises.

        The gradient is clipped where the settings say so.
        """
        if self.settings.clip_grad_norm:
            clipped = self.fabric.clip_gradients(
                self.wrapped_method,
                self.optimizer,
                max_norm=self.settings.clip_grad_norm,
                error_if_nonfinite=False,
            )
            norm = cast(Tensor, clipped)
        else:
            norm = get_total_norm(p.grad for p in self.method.parameters() if p.grad is not None)
        # Infinite gradients are normal in fp16: the scaler skips their steps.
        total = sum((step.total for step in steps), start=self.zero)
        total = total if self.settings.precision == "fp16" else total + norm
        if not torch.isfinite(total.detach()).item():
            fault = find_nonfinite_term(self.method, steps, batches, progress)
            raise DivergenceError(f"{fault} at step {self.global_step}; {_REMEDY}")
        return norm

    def _log_step(self, epoch: int, step: StepOutput, batch: Batch, norm: Tensor) -> None:
        now = time.perf_counter()
        images_per_second = self.images_since_log / (now - self.last_log_time)
        self.last_log_time, self.images_since_log = now, 0
        entry: dict[str, Any] = {"kind": "step", "step": self.global_step, "epoch": epoch}
        entry["lr"] = self.optimizer.param_groups[0]["lr"]
        entry |= {kind: self._process_mean(m.means()) for kind, m in self.meters.window.items()}
        for meter in self.meters.window.values():
            meter.reset()
        self.train_metric.reset()
        with torch.no_grad():
            self.train_metric.update(step.outputs, batch.targets)
        entry["train"] = {name: float(v) for name, v in self.train_metric.compute().items()}
        entry |= {"grad_norm": float(norm), "images_per_second": images_per_second}
        if self.fabric.is_global_zero:
            self.directory.log(entry)
            self.callback.on_log(entry, self.total_steps)

    def _process_mean(self, means: dict[str, float]) -> dict[str, float]:
        if self.fabric.world_size == 1 or not means:
            return means
        values = torch.tensor(list(means.values()), dtype=torch.float64, device=self.fabric.device)
        mean = cast(Tensor, self.fabric.all_reduce(values, reduce_op="mean"))
        return dict(zip(means, mean.tolist(), strict=True))

    def _stop_requested(self) -> bool:
        if self.fabric.world_size > 1:  # all processes must leave the loop at the same step
            number = torch.tensor(self.signals.signal_number, device=self.fabric.device)
            highest = self.fabric.all_reduce(number, reduce_op="max")
            self.signals.signal_number = int(cast(Tensor, highest))
        return bool(self.signals.signal_number)


_REMEDY = "the optimizer did not move: try a lower --lr, a --warmup, --clip-grad-norm 1 or fp32"
