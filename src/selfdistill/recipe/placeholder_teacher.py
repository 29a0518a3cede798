"""What stands for the teacher of a run that is only evaluated."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..core import ArtifactError
from ..data import ImageData
from ..records.training_data import TEACHER_FILE, read_teacher
from ..tasks import make_task


def placeholder_teacher(path: Path, data: ImageData) -> nn.Module:
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
    return PlaceholderTeacher(teacher.taps, data)


class PlaceholderTeacher(nn.Module):
    """A network whose features have the shapes that were asked for, and are zero.

    Args:
        taps: {kind of default taps: {name: (C, H, W)}}; the names are made anew.
        data: whose task gives its outputs their form; they say nothing.
    """

    def __init__(
        self, taps: Mapping[str, Mapping[str, tuple[int, int, int]]], data: ImageData
    ) -> None:
        super().__init__()
        task = make_task(data.task, data.classes, data.train.shape)
        self.head = task.head(1)
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
        return self.head(x.new_zeros(x.shape[0], 1, 1, 1))


class _ZeroFeature(nn.Module):
    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        channels, height, width = self.shape
        if width == 1:  # as tokens or a vector come: a map of one column could be misread
            return x.new_zeros(len(x), height, channels)
        return x.new_zeros(len(x), channels, height, width)
