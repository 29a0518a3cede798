"""`selfdistill.wrap`: a network in a method, for any training loop."""

import inspect
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..core import ConfigError, Task, check_kind, nearest
from ..recipe.build_method import build_method
from ..recipe.options import check_options, method_classes
from ..tasks import LOOP_TASKS, TASKS, check_network
from .loss import DistillationLoss


def wrap(
    network: nn.Module,
    method: str,
    *,
    example: Any,
    classes: int | Sequence[str],
    task: str = "classification",
    taps: str | Sequence[str] = "auto",
    teacher: nn.Module | None = None,
    teacher_taps: str | Sequence[str] = "auto",
    peers: nn.Module | Sequence[nn.Module] = (),
    train_labels: Tensor | None = None,
    label_smoothing: float = 0.0,
    seed: int = 0,
    total_steps: int | None = None,
    **options: Any,
) -> DistillationLoss:
    """Wrap a network in a method, to train it in any loop.

    Args:
        network: the student, trained in place; its state keeps its own keys. What a method deploys
            that makes a network of it is `criterion.method.predictors()["student"]`.
        method: a name; `selfdistill methods` lists them.
        example: two input images, (2, C, H, W), or clips, (2, C, T, H, W); for nodes a graph.
        classes: their number or names.
        task: ``"classification"`` of images and ``"clips"``, labels (B,); ``"segmentation"``, masks
            (B, H, W) int64 in which 255 is no class; ``"detection"``, rows (B, M, 5) float32 of
            class, x1, y1, x2, y2 in pixels, of class −1 where there is no box; ``"nodes"`` of
            graphs, labels (N,) or (N, K), see `tasks.Nodes`.
        taps, teacher_taps: where to read features, see `find_taps`.
        teacher: for offline methods; it is not trained.
        peers: networks trained along, for online methods.
        train_labels: of all training images, (N,), for methods with a memory of images.
        label_smoothing: of the supervised loss, in [0, 1).
        seed: of the method's random draws.
        total_steps: number of calls in training, for methods whose weights change over it.
        options: of the method, by keyword.

    Returns:
        A module to call as a loss, on the network's device.

    Raises:
        ConfigError: an unknown method, task or option, or a network whose outputs do not fit the
            task and its classes.

    Examples:
        >>> import torch
        >>> network = nn.Sequential(
        ...     nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(),
        ...     nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
        >>> images, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 3])
        >>> criterion = wrap(network, "muse", example=images, classes=10, taps="1,3")
        >>> optimizer = torch.optim.SGD(criterion.param_groups(lr=0.1))
        >>> criterion(images, labels).backward()
    """
    peers = [peers] if isinstance(peers, nn.Module) else peers
    for name, module in [("network", network), ("teacher", teacher), *(("peer", p) for p in peers)]:
        kind = nn.Module | None if name == "teacher" else nn.Module
        check_kind(f"a {name}", module, kind, "a torch.nn.Module here, no name and no path")
    names = [str(i) for i in range(classes)] if isinstance(classes, int) else list(classes)
    tasks = TASKS | LOOP_TASKS
    if task not in tasks:
        raise ConfigError(f"there is no task '{task}'{nearest(task, tasks)}")
    if not (isinstance(example, Tensor) or tasks[task].graphs):
        raise ConfigError(
            f"the example of task '{task}' is two images, (2, C, H, W), and this is "
            f"{type(example).__name__}; graphs want task='nodes'"
        )
    if isinstance(example, Tensor):
        _check_example(example, tasks[task])
    built_task = tasks[task](names, example, label_smoothing=label_smoothing)
    for module in (network, *peers):
        check_network(module, built_task, foreign=True)
    built_method = build_method(
        method,
        network,
        built_task,
        taps,
        check_options(method, options),
        teacher=teacher,
        teacher_taps=teacher_taps,
        peers=peers,
        train_labels=train_labels,
    )
    device = next((p.device for p in network.parameters()), getattr(example, "device", None))
    signatures = map(inspect.signature, method_classes(method).values())
    needs_index = any("train_labels" in signature.parameters for signature in signatures)
    criterion = DistillationLoss(
        built_method, built_task, seed=seed, total_steps=total_steps, needs_index=needs_index
    )
    return criterion.to(device)


def _check_example(example: Tensor, task: type[Task]) -> None:
    """Raises `ConfigError` if an example is no batch of what a network of the task takes."""
    wanted = "clips, (2, C, T, H, W)" if task.clips else "images, (2, C, H, W)"
    if example.dim() != 4 + task.clips:
        raise ConfigError(
            f"the example of task '{task.name}' is two {wanted}, and this is "
            f"{tuple(example.shape)}; clips want task='clips'"
        )
    if not example.is_floating_point():
        raise ConfigError(
            f"the example is two {wanted}, as the network takes them, and this is {example.dtype}; "
            "normalize it as the training images, to floating point"
        )
