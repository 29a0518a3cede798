"""Checkpoints that a kill at any moment cannot corrupt.

A checkpoint is a directory, written under a temporary name in the same folder, flushed to the disk,
and renamed. It holds safetensors and JSON only, and a manifest with the SHA-256 of each file.
No pointer names the last one: a resume searches for the newest whose checksums match.
"""

import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..core import ArtifactError, ResourceError, atomic_directory

FORMAT = 1
"""Raised when the layout changes; a newer one is refused rather than misread."""


class Checkpoint(NamedTuple):
    """Groups of tensors by file stem (`model`, `method`, `optimizer`, `ema`), and a JSON state."""

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Write ``folder/step-NNNNNN`` in one atomic move and delete all but the newest `keep`.

    Raises:
        ResourceError: the disk is full or the folder cannot be written; earlier ones stay intact.
    """
    path = folder / f"step-{checkpoint.state['step']:06d}"
    try:
        for stale in folder.glob(".step-*"):  # drafts of processes that were killed
            shutil.rmtree(stale)
        with atomic_directory(path, replace=True) as draft:
            _write(draft, checkpoint)
        others = [other for other in _step_directories(folder) if other != path]
        for old in others[keep - 1 :]:
            shutil.rmtree(old)
    except ResourceError:
        raise
    except (OSError, SafetensorError) as error:
        raise ResourceError(f"the checkpoint {path} could not be written: {error}") from error
    return path


def _write(draft: Path, checkpoint: Checkpoint) -> None:
    for stem, tensors in checkpoint.tensors.items():
        plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        save_file(plain, draft / f"{stem}.safetensors")
    state = {"format": FORMAT, **checkpoint.state}
    (draft / "state.json").write_text(json.dumps(state), encoding="utf-8")
    sums = {file.name: _digest(file) for file in sorted(draft.iterdir())}
    (draft / "manifest.json").write_text(json.dumps(sums, indent=1), encoding="utf-8")


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _step_directories(folder: Path) -> list[Path]:
    """Directories of all finished checkpoints, newest first."""
    directories = [path for path in folder.glob("step-*") if path.name[5:].isdecimal()]
    return sorted(directories, key=lambda path: int(path.name[5:]), reverse=True)


def load(path: Path) -> Checkpoint:
    """Read one checkpoint after checking every file against the manifest.

    Raises:
        ArtifactError: a file is missing, changed, not what its name says, or of a newer format.
    """
    try:
        digests: dict[str, str] = json.loads((path / "manifest.json").read_bytes())
        for name, digest in digests.items():
            _refuse_pickle(path / name)
            if _digest(path / name) != digest:
                raise ArtifactError(f"{path / name} is corrupt: its checksum does not match")
        state: dict[str, Any] = json.loads((path / "state.json").read_bytes())
        complete, newer = "state.json" in digests and state["step"] >= 0, state["format"] > FORMAT
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ArtifactError(f"the checkpoint {path} is incomplete or corrupt: {error}") from error
    if not complete:
        raise ArtifactError(f"the checkpoint {path} is incomplete: its manifest knows no state")
    if newer:
        raise ArtifactError(f"the checkpoint {path} was made by a newer version of selfdistill")
    files = [path / name for name in digests if name.endswith(".safetensors")]
    return Checkpoint({file.stem: read_tensors(file) for file in files}, state)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; any other file, above all a pickle, is refused unread."""
    try:
        _refuse_pickle(file)
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{file} is not a readable safetensors file: {error}") from error


def _refuse_pickle(file: Path) -> None:
    with file.open("rb") as stream:
        start = stream.read(9)
    # A safetensors file starts with eight bytes of length, which may look like anything, and "{".
    if start[8:] != b"{" and (start[:2] == b"PK" or start[:1] == b"\x80"):
        raise ArtifactError(
            f"{file} is a pickle, which can run code when read; it was not opened. "
            "Checkpoints are safetensors files"
        )


def newest(folder: Path) -> Checkpoint | None:
    """The newest intact checkpoint, or None; a corrupt one is skipped with a warning.

    Raises:
        ArtifactError: there are checkpoints, and all are corrupt.
    """
    faults: list[str] = []
    for directory in _step_directories(folder):
        try:
            checkpoint = load(directory)
        except ArtifactError as error:
            faults.append(str(error))
            continue
        for fault in faults:
            warnings.warn(f"{fault}; going on from {directory.name}", stacklevel=2)
        return checkpoint
    if faults:
        raise ArtifactError(faults[0] + "; no other checkpoint is left")
    return None
