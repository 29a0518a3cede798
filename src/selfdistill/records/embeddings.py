"""`embeddings.safetensors`: a teacher's of the held-out images, by which a run is scored."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..core import ArtifactError, read_regular

FILE = "embeddings.safetensors"
_MAX_BYTES = 16 << 30


def to_bytes(embeddings: Mapping[str, Tensor]) -> bytes:
    """The content of the file: embeddings (N, D) by split, in half precision."""
    return save({name: x.half().contiguous().cpu() for name, x in embeddings.items()})


def read_embeddings(run_dir: Path) -> dict[str, Tensor] | None:
    """The embeddings (N, D) float16 of a run by split; None if there is no file.

    Raises:
        ArtifactError: it cannot be read, or holds something else.
    """
    path = run_dir / FILE
    try:
        tensors = load(read_regular(path, _MAX_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from None
    if any(x.dim() != 2 or x.dtype != torch.float16 for x in tensors.values()):
        raise ArtifactError(f"{path} holds something else than embeddings; train the run anew")
    return tensors
