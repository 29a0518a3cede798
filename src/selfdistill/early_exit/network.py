"""Early-exit inference: an image leaves at the first exit whose confidence suffices."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core import ConfigError, Method
from ..core.fake_quantization import remove_fake_quantization
from ..costs.latency import median_latencies
from ..costs.macs import network_cost
from ..data import EvalLoader, ImageData
from ..data.image_set import ImageSet
from ..modules.exits import EarlyExit
from ..taps import as_map, count_prefix_tokens
from ..taps.fx_split import copy_without_hooks, split_at, truncate_at
from ..tasks import TASKS
from .thresholds import ExitCosts, ExitDecisions, Threshold

_BATCH_SIZE = 256


class EarlyExitOutput(NamedTuple):
    """Predictions of a batch.

    Attributes:
        logits: (B, K).
        exits: (B,) int64, the exit of each image as an index into `EarlyExitNetwork.names`.
    """

    logits: Tensor
    exits: Tensor


class EarlyExitNetwork(nn.Module):
    """A classifier that stops computing an image at the first confident exit.

    After each stage its exit head classifies the images. Those whose largest class probability
    reaches the exit's threshold leave with these logits; the next stage runs on the others. Up to
    rounding, the logits of an image are those of its exit on the image alone.

    Args:
        stages: the network in parts, one more than there are heads.
        heads: from the feature (B, C, H, W) of a stage to logits (B, K).
        names: of the exits, and last of the end of the network.
        thresholds: the lowest probability to leave with, one for each exit.
        prefix_tokens: of the network, see `as_map`.

    Attributes:
        names, thresholds, prefix_tokens: as given.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        heads: Sequence[nn.Module],
        names: Sequence[str],
        thresholds: Sequence[float],
        prefix_tokens: int = 0,
    ) -> None:
        super().__init__()
        self.prefix_tokens = prefix_tokens
        self.stages, self.heads = nn.ModuleList(stages), nn.ModuleList(heads)
        self.names, self.thresholds = tuple(names), tuple(thresholds)
        self.eval()

    @torch.no_grad()
    def forward(self, x: Tensor) -> EarlyExitOutput:
        """Normalized images (B, C, H, W) to logits and exits."""
        exits = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        active = torch.arange(len(x), device=x.device)  # indices of the images in x
        size = x.shape[2:]
        for k, stage in enumerate(self.stages):
            x = stage(x)
            stage_logits = (
                self.heads[k](as_map(x, size, self.prefix_tokens)) if k < len(self.heads) else x
            )
            if k == 0:
                logits = torch.empty_like(stage_logits)
            logits[active], exits[active] = stage_logits, k  # overwritten if an image goes on
            if k == len(self.heads):
                break
            continues = ~(confidence(stage_logits) >= self.thresholds[k])
            if not continues.any():
                break
            if not continues.all():  # a single image is never copied
                x, active = x[continues], active[continues]
        return EarlyExitOutput(logits, exits)


def confidence(logits: Tensor) -> Tensor:
    """The largest class probability: (B, K) -> (B,) float32."""
    return logits.float().softmax(1).amax(1)


def check_image_labels(task: str) -> None:
    """Raise `ConfigError` if a task has no class per image, whose confidence decides."""
    if not TASKS[task].image_labels:
        raise ConfigError(
            f"an image leaves early where an exit is sure of its class, and {task} gives images "
            "none; take one exit by itself: `selfdistill export` cuts it out"
        )


def early_exits(method: Method) -> dict[str, EarlyExit]:
    """The exits of a trained method by name, shallowest first.

    Raises:
        ConfigError: there are none.
    """
    predictors = method.predictors()
    exits = {name: exit_ for name, exit_ in predictors.items() if isinstance(exit_, EarlyExit)}
    if not exits:
        raise ConfigError(
            "there are no exits for an image to leave at; `selfdistill train --method exits` "
            "trains a network that has some"
        )
    return exits


def build_early_exit_network(method: Method, thresholds: Sequence[Threshold]) -> EarlyExitNetwork:
    """An independent copy of student and exits, without hooks, as an early-exit network.

    It computes in float32, also where the method simulates int8.

    Args:
        method: trained, with exits.
        thresholds: one for each exit; an exit with None is left out with its head.

    Raises:
        ConfigError: there are no exits, or the network cannot be split at them.
    """
    pairs = zip(early_exits(method).items(), thresholds, strict=True)
    used = {name: (exit_, t) for (name, exit_), t in pairs if t is not None}
    student = method.predictors()["student"]
    try:
        stages = split_at(student, [exit_.name for exit_, _ in used.values()])
    except ConfigError as error:
        raise ConfigError(
            f"{type(student).__name__} cannot be computed on from an exit ({error.__cause__}); "
            "take one exit by itself: `selfdistill export` cuts it out"
        ) from error
    heads = [copy_without_hooks(exit_.head) for exit_, _ in used.values()]
    network = EarlyExitNetwork(
        [copy_without_hooks(stage) for stage in stages],
        heads,
        [*used, "student"],
        [threshold for _, threshold in used.values()],
        count_prefix_tokens(student),
    )
    remove_fake_quantization(network)
    return network


def exit_costs(method: Method, example: Tensor) -> ExitCosts:
    """Multiply-adds of the trunk up to each exit, and of each exit's head.

    Args:
        method: trained, with exits.
        example: an input, (B, C, H, W), of which one image is counted.
    """
    exits, student = early_exits(method), method.predictors()["student"]
    trunk = [
        network_cost(truncate_at(student, exit_.name), example).macs for exit_ in exits.values()
    ]
    totals = [network_cost(exit_, example).macs for exit_ in exits.values()]
    heads = [total - shared for total, shared in zip(totals, trunk, strict=True)]
    return ExitCosts((*trunk, network_cost(student, example).macs), tuple(heads))


def collect_exit_decisions(
    method: Method, data: ImageData, images: ImageSet, *, workers: int = 0
) -> ExitDecisions:
    """Confidence and correctness of all exits and the student on labeled images.

    Computed in float32 on the method's device.

    Args:
        method: trained, in evaluation mode, with exits.
        data: sets the normalization.
        images: a split of the data.
        workers: processes that decode files.
    """
    names = [*early_exits(method), "student"]
    device = next(method.parameters()).device
    batches = EvalLoader(
        images,
        batch_size=_BATCH_SIZE,
        mean=data.mean,
        std=data.std,
        device=device,
        workers=workers,
    )
    confidences, correct = [], []
    with torch.inference_mode():
        for batch in batches:
            outputs = method.predict(batch.inputs)
            logits = [outputs[name] for name in names]
            confidences.append(torch.stack([confidence(z) for z in logits[:-1]], 1).cpu())
            correct.append(torch.stack([z.argmax(1) == batch.targets for z in logits], 1).cpu())
    return ExitDecisions(torch.cat(confidences).numpy(), torch.cat(correct).numpy())


class ExitLatencies(NamedTuple):
    """Seconds per image.

    Attributes:
        per_exit: of each network, if the image leaves at its first, second, … exit.
        student: of the full network without exits.
    """

    per_exit: list[list[float]]
    student: float


def time_exits(
    networks: Sequence[EarlyExitNetwork],
    student: nn.Module,
    example: Tensor,
    *,
    device: torch.device | str = "cpu",
    seconds: float = 10.0,
) -> ExitLatencies:
    """Median time of one image that leaves at each exit, interleaved with the student's.

    Args:
        networks: their thresholds are replaced, to force each exit in turn.
        student: the network without exits.
        example: an input, (B, C, H, W), that sets the shape.
        device, seconds: see `median_latencies`.
    """
    # the CPU time of a single thread excludes interference of other processes
    single_thread = torch.device(device).type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if single_thread else time.perf_counter
    forced = {
        f"{i}/{k}": _force_exit(network, k)
        for i, network in enumerate(networks)
        for k in range(len(network.names))
    }
    latencies = median_latencies(
        {"student": student, **forced}, example, 1, device=device, seconds=seconds, clock=clock
    )
    per_exit = [
        [latencies[f"{i}/{k}"] for k in range(len(network.names))]
        for i, network in enumerate(networks)
    ]
    return ExitLatencies(per_exit, latencies["student"])


def _force_exit(network: EarlyExitNetwork, k: int) -> EarlyExitNetwork:
    """The same network with thresholds by which every image leaves at exit k."""
    thresholds = [2.0] * k + [0.0] * (len(network.heads) - k)  # probabilities are in [0, 1]
    return EarlyExitNetwork(
        [*network.stages], [*network.heads], network.names, thresholds, network.prefix_tokens
    )
