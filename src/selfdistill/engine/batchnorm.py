"""Statistics of BatchNorm layers measured anew, when the weights have stopped moving."""

from collections.abc import Callable, Iterable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..core import Batch, Frozen, Method, trained_state
from ..core.training_modes import restored_modes
from .fine_tuning import FineTuning
from .optimizer import EMA
from .state import ema_weights


def reestimate_batchnorm(
    fabric: Fabric,
    method: Method,
    batches: Callable[[], Iterable[list[Batch]]],
    tuning: FineTuning,
    ema: EMA | None = None,
) -> None:
    """Measure the statistics of a method's predictors anew, and those of their moving average.

    Args:
        fabric: precision of the passes.
        method: changed in place.
        batches: gives the training batches, one pass over them for each measurement.
        tuning: its fixed modules keep their statistics.
        ema: changed in place, with statistics of its own.
    """
    _measure(fabric, method, batches(), tuning)
    if ema is None:
        return
    with ema_weights(method, ema):
        _measure(fabric, method, batches(), tuning)
        averaged = trained_state(method)
        ema.state = {name: averaged[name].clone() for name in ema.state}


@torch.no_grad()
def _measure(
    fabric: Fabric, method: Method, batches: Iterable[list[Batch]], tuning: FineTuning
) -> None:
    """Measure the statistics of all predictors: plain means over the batches.

    Everything but the BatchNorm layers is in evaluation mode. Layers that no predictor runs keep
    their statistics, as do fixed and frozen ones. Izmailov et al. 2018,
    https://arxiv.org/abs/1803.05407, section 3.2, as `torch.optim.swa_utils.update_bn` does it.
    """
    norms = _measurable(method, tuning)
    before = [(norm, norm.momentum, _statistics(norm)) for norm in norms]
    with restored_modes(method):
        method.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all batches so far
            norm.train()
        for micro_batches in batches:
            for batch in micro_batches:
                with fabric.autocast():
                    method.predict(batch.inputs)
    for norm, momentum, statistics in before:
        norm.momentum = momentum
        if not norm.num_batches_tracked:
            for name, value in statistics.items():
                getattr(norm, name).copy_(value)


def _measurable(method: Method, tuning: FineTuning) -> list[_BatchNorm]:
    """BatchNorm layers that keep statistics, of all predictors, each once."""
    fixed = {id(module) for module in tuning.fixed_modules}
    fixed |= {
        id(m) for part in method.modules() if isinstance(part, Frozen) for m in part.modules()
    }
    modules = [m for network in method.predictors().values() for m in network.modules()]
    return [
        module
        for module in dict.fromkeys(modules)
        if isinstance(module, _BatchNorm) and module.track_running_stats and id(module) not in fixed
    ]


def _statistics(norm: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in norm.named_buffers(recurse=False)}
