"""What the newest checkpoint of a run holds."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor


def saved_tensors(run: Path) -> dict[str, Tensor]:
    """{file/name: tensor} of all files."""
    newest = max((run / "checkpoints").glob("step-*"))
    return {
        f"{file.stem}/{name}": tensor
        for file in sorted(newest.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }
