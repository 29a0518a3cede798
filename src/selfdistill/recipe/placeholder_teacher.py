"""What stands for the teacher of a run that is only evaluated."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..core import ArtifactError, Task
from ..records.training_data import TEACHER_FILE, read_teacher


def placeholder_teacher(path: Path, task: Task) -> nn.Module:
    """What a run remembers of its teacher, for the run to be evaluated: taps, but nothing to say.

    Raises:
        ArtifactError: the run does not remember it.
    """
    try:
        teacher = read_teacher(path)
    except ArtifactError:
        teacher = None
    if teacher is None:
        raise ArtifactError(
            f"{path / TEACHER_FILE} does not tell the shapes of the teacher's features, which the "
            "method is built by; give the teacher, in Python: teacher="
        )
    return PlaceholderTeacher(teacher.taps, task)


class PlaceholderTeacher(nn.Module):
    """A network whose features have the shapes that were asked for, and are zero.

    Args:
        taps: {kind of default taps: {name: (C, H, W)}}; the names are made anew.
        task: gives its outputs their form; they say nothing.
    """

    def __init__(self, taps: Mapping[str, Mapping[str, tuple[int, ...]]], task: Task) -> None:
        super().__init__()
        channels = [shape[0] for shapes in taps.values() for shape in shapes.values()]
        self.channels = channels[-1] if channels else 1
        self.head = task.head(self.channels)
        self.features = nn.ModuleDict(
            {kind: nn.ModuleList(map(_ZeroFeature, taps[kind].values())) for kind in taps}
        )
        names = {kind: [f"features.{kind}.{i}" for i in range(len(taps[kind]))] for kind in taps}
        self.cuts, self.stage_ends = names.get("auto"), names.get("stages")

    def forward(self, x: Tensor) -> Any:
        """Each feature comes from the one before, so that the network can be split at any."""
        for features in self.features.values():
            for feature in features:  # type: ignore[attr-defined]
                x = feature(x)
        return self.head(x.new_zeros(x.shape[0], self.channels, 1, 1))


class _ZeroFeature(nn.Module):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        if len(self.shape) == 3 and self.shape[2] == 1:
            channels, height, _ = self.shape  # as tokens or a vector: a column could be misread
            return x.new_zeros(len(x), height, channels)
        return x.new_zeros(len(x), *self.shape)
