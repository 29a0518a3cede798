"""The width of an embedding, which is that of a teacher's feature."""

from dataclasses import replace
from typing import Any

import torch

from ..core import ConfigError
from ..data import ImageData
from ..taps import Taps, beside
from .build_method import teacher_network
from .teachers import LoadedTeacher


def with_embedding(data: ImageData, teacher: LoadedTeacher | None, taps: Any) -> ImageData:
    """Data whose classes are the dimensions of what a teacher gives; those that have some stay.

    Args:
        data: of the task embedding.
        teacher: whose last tap is read, as its classifier pools it.
        taps: of the teacher, see `find_taps`.

    Raises:
        ConfigError: there is no teacher.
    """
    if data.classes:
        return data
    if teacher is None:
        raise ConfigError(
            "task 'embedding' is learned from a teacher: give --teacher with a run, a weights file "
            "or timm/NAME (in Python: teacher=)"
        )
    network = teacher_network(teacher.network)
    example = beside(network, torch.zeros(2, *data.train.shape))
    tapped = network if isinstance(network, Taps) else Taps(network, taps, example=example)
    width = tapped.shapes[tapped.names[-1]][0]
    return replace(data, classes=[str(number) for number in range(width)])
