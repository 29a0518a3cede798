"""Anytime inference: an image leaves at the first exit that is sure enough of it."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core import ConfigError, Method
from ..data import EvalLoader, ImageData
from ..data.images import ImageSet
from ..modules.exits import EarlyExit
from ..taps import as_map
from ..taps.fx_split import copy_without_hooks, split_at, truncate_at
from ..tasks import TASKS
from .cost import cost
from .measure import latencies
from .thresholds import Prices, Threshold, Watched

_BATCH = 256  # images that are asked about at once


class Answer(NamedTuple):
    """What is said of some images.

    Attributes:
        logits: (B, K).
        exits: (B,) int64, where each image left, as a place in `Anytime.names`.
    """

    logits: Tensor
    exits: Tensor


class Anytime(nn.Module):
    """A classifier that computes each image no further than it has to.

    Behind every stage an exit says what it makes of the images. Those that it is sure enough of,
    by the largest of their class probabilities, leave; only the others are computed on. What an
    image leaves with is what that exit would have said of it alone, to rounding.

    Args:
        stages: the network in parts, one more than there are heads.
        heads: from the map (B, C, H, W) behind a stage to logits (B, K).
        names: of the exits, and last of what comes behind all stages.
        thresholds: the least probability to leave with, one for each exit.

    Attributes:
        names, thresholds: as they were given.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        heads: Sequence[nn.Module],
        names: Sequence[str],
        thresholds: Sequence[float],
    ) -> None:
        super().__init__()
        self.stages, self.heads = nn.ModuleList(stages), nn.ModuleList(heads)
        self.names, self.thresholds = tuple(names), tuple(thresholds)
        self.eval()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Answer:
        """Normalized images (B, C, H, W), as the network takes them, to what is said of them."""
        exits = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        here = torch.arange(len(x), device=x.device)  # the images that are still computed
        size = x.shape[-2:]
        for k, stage in enumerate(self.stages):
            x = stage(x)
            out = self.heads[k](as_map(x, size)) if k < len(self.heads) else x
            if k == 0:
                logits = torch.empty_like(out)
            logits[here], exits[here] = out, k  # for good, unless an image goes on
            if k == len(self.heads):
                break
            stays = ~(confidence(out) >= self.thresholds[k])
            if not stays.any():
                break
            if not stays.all():  # one image by itself is never copied
                x, here = x[stays], here[stays]
        return Answer(logits, exits)


def confidence(logits: Tensor) -> Tensor:
    """The largest class probability: (B, K) -> (B,) float32."""
    return logits.float().softmax(1).amax(1)


def check_classes(task: str) -> None:
    """Raises `ConfigError` if images have no class of their own by whose sureness they leave."""
    if not TASKS[task].image_labels:
        raise ConfigError(
            f"an image leaves early where an exit is sure of its class, and {task} gives images "
            "none; take one exit by itself: `selfdistill export` cuts it out"
        )


def exits_of(method: Method) -> dict[str, EarlyExit]:
    """The exits of a trained method by name, shallowest first.

    Raises:
        ConfigError: it leaves none.
    """
    predictors = method.predictors()
    found = {name: exit_ for name, exit_ in predictors.items() if isinstance(exit_, EarlyExit)}
    if not found:
        raise ConfigError(
            "there are no exits for an image to leave at; `selfdistill train` with its default "
            "method trains a network that has some"
        )
    return found


def make_anytime(method: Method, thresholds: Sequence[Threshold]) -> Anytime:
    """An independent copy of student and exits, without hooks, that lets images leave early.

    Args:
        method: trained, with exits.
        thresholds: one for each exit; an exit with None is left out, head and all.

    Raises:
        ConfigError: there are no exits, or the network cannot be parted at them.
    """
    pairs = zip(exits_of(method).items(), thresholds, strict=True)
    asked = {name: (exit_, t) for (name, exit_), t in pairs if t is not None}
    student = method.predictors()["student"]
    try:
        stages = split_at(student, [exit_.name for exit_, _ in asked.values()])
    except ConfigError as error:
        raise ConfigError(
            f"{type(student).__name__} cannot be computed on from an exit ({error.__cause__}); "
            "take one exit by itself: `selfdistill export` cuts it out"
        ) from error
    heads = [copy_without_hooks(exit_.head) for exit_, _ in asked.values()]
    limits = [t for _, t in asked.values()]
    return Anytime(
        [copy_without_hooks(stage) for stage in stages], heads, [*asked, "student"], limits
    )


def prices_of(method: Method, example: Tensor) -> Prices:
    """What the way to each exit costs, and each exit's head.

    Args:
        method: trained, with exits.
        example: an input, (B, C, H, W); one image of it is counted.
    """
    exits, student = exits_of(method), method.predictors()["student"]
    trunk = [cost(truncate_at(student, exit_.name), example).macs for exit_ in exits.values()]
    whole = [cost(exit_, example).macs for exit_ in exits.values()]
    heads = [both - way for both, way in zip(whole, trunk, strict=True)]
    return Prices((*trunk, cost(student, example).macs), tuple(heads))


def watch(method: Method, data: ImageData, images: ImageSet, *, workers: int = 0) -> Watched:
    """Ask all exits and the student about labeled images, in float32, on the method's device.

    Args:
        method: trained, in evaluation mode, with exits.
        data: says how images are normalized.
        images: a part of the data.
        workers: processes that decode files.
    """
    names = [*exits_of(method), "student"]
    device = next(method.parameters()).device
    batches = EvalLoader(
        images,
        batch_size=_BATCH,
        mean=data.mean,
        std=data.std,
        device=device,
        workers=workers,
    )
    sure, right = [], []
    with torch.inference_mode():
        for batch in batches:
            said = method.predict(batch.inputs)
            outs = [said[name] for name in names]
            sure.append(torch.stack([confidence(out) for out in outs[:-1]], 1).cpu())
            right.append(torch.stack([out.argmax(1) == batch.targets for out in outs], 1).cpu())
    return Watched(torch.cat(sure).numpy(), torch.cat(right).numpy())


class Timing(NamedTuple):
    """Seconds of one image.

    Attributes:
        leaving: for each network, where the image leaves at each of its exits.
        student: of the whole network without exits.
    """

    leaving: list[list[float]]
    student: float


def timed(
    networks: Sequence[Anytime],
    student: nn.Module,
    example: Tensor,
    *,
    device: torch.device | str = "cpu",
    seconds: float = 10.0,
) -> Timing:
    """Median time of one image on each way out, all ways and the student taking turns.

    Args:
        networks: their exits are made to let go, or not, whatever they think.
        student: what to compare with.
        example: an input, (B, C, H, W), to take the shape from.
        device, seconds: see `latencies`.
    """
    # a single thread's own time leaves out what else the machine does
    alone = torch.device(device).type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    forced = [[_leaving_at(k, it) for k in range(len(it.names))] for it in networks]
    ways = [student, *(way for each in forced for way in each)]
    named = {str(i): way for i, way in enumerate(ways)}
    found = latencies(named, example, 1, device=device, seconds=seconds, clock=clock)
    whole, *rest = found.values()
    times = iter(rest)
    return Timing([[next(times) for _ in each] for each in forced], whole)


def _leaving_at(k: int, network: Anytime) -> Anytime:
    """The same network, in which every image leaves at one exit."""
    limits = [2.0] * k + [0.0] * (len(network.heads) - k)  # nobody is so sure, everybody is
    return Anytime([*network.stages], [*network.heads], network.names, limits)
