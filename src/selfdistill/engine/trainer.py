"""The training loop: from a method, batches and settings to a trained method."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn.utils import get_total_norm

from ..core import Batch, Method, Progress, StepOutput, Task, averaged_state, memory_format
from ..core.keyed_random import bits, purpose
from ..signals import Interrupted, Signals
from . import checkpoint
from .batchnorm import reestimate_batchnorm
from .callback import Callback
from .extra_choice import ExtraChoice
from .fine_tuning import FineTuning
from .finite_check import FiniteCheck, Passes
from .meters import Meters
from .monitor_warnings import MonitorWarnings
from .nonfinite import divergence_error, find_nonfinite_tensor
from .optimizer import (
    EMA,
    build_optimizer,
    init_momentum,
    is_fused,
    learning_rate,
    set_learning_rate,
)
from .optimizer_state import restore_optimizer
from .processes import ProcessMax, average_statistics, process_max
from .protocols import Batches, Origin
from .run_directory import RunDirectory
from .settings import TrainingSettings
from .state import (
    checkpoint_tensors,
    ema_weights,
    restore_ema,
    restore_method,
    restore_scaler,
    student_prefix,
    tensor_group,
)
from .throughput import Throughput
from .validate import validate

_STEP = purpose("step")
_NO_TUNING = FineTuning()


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
        origin: goes into the checkpoints, and is compared with that of the one to go on from.
        tuning: what of the network learns how fast.
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
        origin: Origin | None = None,
        tuning: FineTuning = _NO_TUNING,
    ) -> None:
        self.fabric, self.method, self.task, self.settings = fabric, method, task, settings
        self.train_batches, self.val_batches = train_batches, val_batches
        self.directory, self.callback, self.origin = directory, callback or Callback(), origin
        self.global_step, self.total_steps = 0, settings.epochs * train_batches.steps_per_epoch
        on_gpu = fabric.device.type == "cuda"
        # `signals` hears at any time; the agreed one is known to all processes
        self.meters, self.signals, self.agreed_signal = Meters(), Signals(), 0
        self.agree = ProcessMax(fabric, deferred=on_gpu)
        self.warnings = MonitorWarnings(
            method, self.callback, train_batches.steps_per_epoch, self.total_steps
        )
        if settings.channels_last:
            memory_format.module_to_channels_last(method)
        if settings.compile:
            method.compile()
        self.choice = ExtraChoice(fabric, method, train_batches)
        self.tuning = tuning
        optimizer = build_optimizer(method, settings, tuning, fused=on_gpu)
        self.wrapped_method, self.optimizer = fabric.setup(method, optimizer)
        init_momentum(optimizer)
        guarded = settings.precision == "fp16" or is_fused(optimizer)  # in fp16 by the scaler
        self.saved_step = partial(checkpoint.newest_step, directory.checkpoints)
        check = partial(FiniteCheck, method, optimizer, self.saved_step)
        scaler = getattr(fabric.strategy.precision, "scaler", None)
        self.finite = check(deferred=on_gpu and guarded, scaler=scaler)
        self.ema = EMA(averaged_state(method), settings.ema_decay) if settings.ema_decay else None
        self.train_metric = task.train_metric().to(fabric.device)  # constructing it is slow
        self.zero = torch.zeros((), device=fabric.device)
        self.last_step: tuple[StepOutput, Batch, Tensor]  # and the gradient's norm
        self.throughput = Throughput()

    def run(self) -> None:
        """Train to the last epoch.

        Raises:
            DivergenceError: a loss, a gradient or what is to be saved is not finite.
            Interrupted: a stop signal came; a checkpoint was saved.
        """
        self.resume()
        self.method.train()
        with self.signals.caught():
            while self.global_step < self.total_steps:
                epoch, start = divmod(self.global_step, self.train_batches.steps_per_epoch)
                if not start:
                    self.choice.choose(self._progress(epoch))
                for micro_batches in self.train_batches.epoch(epoch, start):
                    self.step(epoch, micro_batches)
                    with self.throughput.paused():
                        self.record_step(epoch)
                    # never between an epoch's last step and `end_epoch`: a resume would skip it
                    if self._stop_requested() and not self._epoch_complete():
                        self.save()
                        raise Interrupted(self.agreed_signal)
                with self.throughput.paused():
                    self.end_epoch(epoch)
                if self._stop_requested():
                    raise Interrupted(self.agreed_signal)

    def step(self, epoch: int, micro_batches: list[Batch]) -> None:
        """One optimizer step, of which nothing is written."""
        settings, progress = self.settings, self._progress(epoch)
        # Dropout draws from the global generator: seeded by the step, its state needs no saving.
        seed = bits(_STEP, settings.seed, self.global_step, self.fabric.global_rank)
        torch.manual_seed(int(seed))
        steps_per_epoch, cycles = self.train_batches.steps_per_epoch, self.method.cycles
        self.rate = learning_rate(settings, self.global_step, steps_per_epoch, cycles)
        set_learning_rate(self.optimizer, self.rate)
        self.tuning.hold()
        steps: list[StepOutput] = []
        for number, batch in enumerate(micro_batches, 1):
            last = number == len(micro_batches)
            with self.fabric.no_backward_sync(self.wrapped_method, enabled=not last):
                steps.append(self.wrapped_method(batch, progress))
                self.fabric.backward(steps[-1].total / len(micro_batches))
            self.meters.add(steps[-1])
            self.throughput.images += len(batch.indices) * self.fabric.world_size
        norm = self._clipped_norm()
        # Infinite gradients are normal in fp16: the scaler skips their steps.
        total = sum((s.total for s in steps), self.zero if settings.precision == "fp16" else norm)
        self.finite.check(Passes(self.global_step, steps, micro_batches, progress), total)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.method.after_step(self._progress(epoch, "cpu"))
        self.global_step += 1
        if self.ema:
            self.ema.update(averaged_state(self.method), self.global_step)
        self.last_step = steps[-1], micro_batches[-1], norm

    def record_step(self, epoch: int) -> None:
        """Tell the callback, log and save where it is due; the first and the last step are."""
        self.callback.on_step(self.global_step, self.total_steps)
        due = self.global_step % self.settings.log_every_steps == 0
        if due or self.global_step in (1, self.total_steps):
            self._log_step(epoch)
        every = self.settings.save_every_steps
        if every and self.global_step % every == 0 and not self._epoch_complete():
            self.save()

    def end_epoch(self, epoch: int) -> None:
        """Evaluate, log, warn about monitors and save."""
        self.finite.finish()
        entry: dict[str, Any] = {"kind": "epoch", "epoch": epoch, "step": self.global_step}
        entry |= self.meters.take_means("epoch", self.fabric)
        last = self.global_step == self.total_steps
        if last and self.settings.batchnorm == "reestimate":
            batches = partial(self.train_batches.epoch, epoch)
            reestimate_batchnorm(self.fabric, self.method, batches, self.tuning, self.ema)
        self._average_statistics()
        due = (epoch + 1) % self.settings.val_every_epochs == 0
        if self.val_batches is not None and (due or last):
            entry |= validate(self.fabric, self.method, self.task, self.val_batches, self.ema)
        self.method.after_epoch(self.val_batches or ())
        if self.fabric.is_global_zero:
            self.directory.log(entry)
            self.callback.on_epoch(entry)
            self.warnings.report(epoch, self.global_step, entry["monitors"])
        self.save()

    def ema_weights(self) -> AbstractContextManager[None]:
        """Context in which the method has its averaged weights, if there are any."""
        return ema_weights(self.method, self.ema)

    def save(self) -> None:
        """Write a checkpoint of the current step.

        Raises:
            DivergenceError: something that would be saved is not finite; nothing is written.
        """
        self.finite.finish()
        self._average_statistics()
        tensors = checkpoint_tensors(self.method, self.optimizer, self.ema) | self.choice.tensors()
        fault = find_nonfinite_tensor(tensors)
        if process_max(self.fabric, int(bool(fault))):
            fault = f"{fault or 'a tensor of another process'} is no longer finite"
            raise divergence_error(fault, self.global_step, self.saved_step())
        state = self.state()
        if self.fabric.is_global_zero:
            checkpoint.save(self.directory.checkpoints, checkpoint.Checkpoint(tensors, state))
        self.fabric.barrier()

    def state(self) -> dict[str, Any]:
        """Where the training stands, of the form of `checkpoint.TrainingState`."""
        return {
            "step": self.global_step,
            "student": student_prefix(self.method),
            "epoch": self.global_step // self.train_batches.steps_per_epoch,
            "finished": self.global_step == self.total_steps,
            "meters": self.meters.state(self.fabric),
            "scaler": self.fabric.strategy.precision.state_dict(),
            "origin": dict(self.origin.texts) if self.origin else {},
        }

    def resume(self) -> None:
        """Restore the newest intact checkpoint, if there is one."""
        newest = checkpoint.newest(self.directory.checkpoints)
        if self.origin and newest:
            self.origin.check(newest.state["origin"])
        step = newest.state["step"] if newest else 0
        if self.fabric.is_global_zero:
            self.directory.rewind(step)
            checkpoint.prune(self.directory.checkpoints, step)
        if newest is None:
            return
        restore_method(self.method, newest)
        restore_optimizer(self.optimizer, self.method, tensor_group(newest, "optimizer"))
        if self.ema:
            restore_ema(self.ema, self.method, newest)
        self.choice.restore(newest)
        self.meters.restore(newest.state["meters"], self.zero)
        restore_scaler(self.fabric.strategy.precision, newest)
        self.global_step = step
        self.callback.on_message(f"going on from step {step} of {self.total_steps}")
        if self.origin and newest.state["origin"] != self.origin.texts:
            self.save()  # by what the run goes on from here

    def _epoch_complete(self) -> bool:
        return self.global_step % self.train_batches.steps_per_epoch == 0

    def _average_statistics(self) -> None:
        states = [dict(self.method.named_buffers()), *([self.ema.state] if self.ema else [])]
        average_statistics(self.fabric, self.method, *states)

    def _progress(self, epoch: int, device: str | torch.device | None = None) -> Progress:
        numbers = self.settings.seed, epoch, self.global_step, self.total_steps
        scalar = partial(torch.full, (), dtype=torch.int64, device=device or self.fabric.device)
        return Progress(*map(scalar, numbers))

    def _clipped_norm(self) -> Tensor:
        """The gradient's norm before it is clipped, where the settings say that it is."""
        if not self.settings.clip_grad_norm:
            grads = (p.grad for p in self.method.parameters() if p.grad is not None)
            return self.finite.unscaled(get_total_norm(grads))
        limit: Any = {"max_norm": self.settings.clip_grad_norm, "error_if_nonfinite": False}
        clipped = self.fabric.clip_gradients(self.wrapped_method, self.optimizer, **limit)
        return cast(Tensor, clipped)

    def _log_step(self, epoch: int) -> None:
        self.finite.finish()
        step, batch, norm = self.last_step
        images_per_second = self.throughput.read()
        entry: dict[str, Any] = {"kind": "step", "step": self.global_step, "epoch": epoch}
        entry["lr"] = self.rate
        entry |= self.meters.take_means("window", self.fabric)
        if batch.targets is not None:
            self.train_metric.reset()
            with torch.no_grad():
                self.train_metric.update(step.outputs, self.task.hard_targets(batch.targets))
            entry["train"] = {name: float(v) for name, v in self.train_metric.compute().items()}
        entry |= {"grad_norm": float(norm), "images_per_second": images_per_second}
        if self.fabric.is_global_zero:
            self.directory.log(entry)
            self.callback.on_log(entry, self.total_steps)

    def _stop_requested(self) -> bool:
        """Whether a process was asked to stop: all must leave the loop at the same step."""
        self.agreed_signal = self.agree(self.signals.signal_number)
        return bool(self.agreed_signal)
