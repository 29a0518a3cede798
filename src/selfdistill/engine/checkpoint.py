"""Checkpoints that a kill at any moment cannot corrupt.

A checkpoint is a directory, written under a temporary name in the same folder, flushed to the disk,
and renamed. It holds safetensors and JSON only, and a manifest with the SHA-256 of each file.
No pointer names the last one: a resume searches for the newest whose checksums match.
"""

import hashlib
import json
import os
import shutil
import stat
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..core import ArtifactError, ResourceError, atomic_directory, read_regular
from ..core.files import REPLACED
from .nonfinite import find_nonfinite_tensor

FORMAT = 2
"""Raised when the layout changes; a newer one is refused rather than misread."""
GROUPS = ("model", "method", "optimizer", "ema", "extra")
"""Names of the groups of tensors; a checkpoint has no other files of tensors."""
_FILES = {"state.json", *(f"{group}.safetensors" for group in GROUPS)}
_Mean = tuple[float, Annotated[int, Field(ge=1)]]


class TrainingState(BaseModel):
    """Form of `state.json`: where the training stands, and what it rests on.

    Attributes:
        format: see `FORMAT`.
        step, epoch: optimizer steps and whole epochs done.
        finished: whether these are all.
        student: prefix of the student's tensors in the method; None if it is no submodule.
        meters: running means, see `Meters.state`.
        scaler: state of the precision's gradient scaler.
        origin: texts of the files that made the run, by name, see `Trainer`.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    format: int = FORMAT
    step: int = Field(ge=0)
    epoch: int = Field(ge=0)
    finished: bool
    student: str | None
    meters: dict[Literal["window", "epoch"], dict[Literal["losses", "monitors"], dict[str, _Mean]]]
    scaler: dict[str, Any]
    origin: dict[str, str]


class Checkpoint(NamedTuple):
    """Groups of tensors, by the names of `GROUPS`, and a state of the form of `TrainingState`."""

    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint, *, keep: int = 2) -> Path:
    """Write ``folder/step-NNNNNN`` in one atomic move and delete all but the newest `keep`.

    Those of later steps, from which a resume did not go on, are deleted first.

    Raises:
        ResourceError: the disk is full or the folder cannot be written; earlier ones stay intact.
    """
    step = checkpoint.state["step"]
    path = folder / f"step-{step:06d}"
    try:
        for stale in folder.glob(".step-*"):  # drafts of processes that were killed
            shutil.rmtree(stale)
        with atomic_directory(path, replace=True) as draft:
            _write(draft, checkpoint)
        others = [other for other in _step_directories(folder) if other != path]
        others.sort(key=lambda other: _step_of(other) > step)
        for old in others[keep - 1 :]:
            shutil.rmtree(old)
    except ResourceError:
        raise
    except (OSError, SafetensorError) as error:
        raise ResourceError(f"the checkpoint {path} could not be written: {error}") from error
    return path


def prune(folder: Path, step: int, *, keep: int = 2) -> None:
    """Delete what a save was killed before deleting, where a run goes on from the step.

    Raises:
        ResourceError: the folder cannot be written.
    """
    earlier = [other for other in _step_directories(folder) if _step_of(other) < step]
    try:
        for stale in (*folder.glob(".step-*"), *earlier[keep - 1 :]):
            shutil.rmtree(stale)
    except OSError as error:
        raise ResourceError(f"{folder} cannot be written: {error.strerror or error}") from error


def _write(draft: Path, checkpoint: Checkpoint) -> None:
    state = draft / "state.json"
    state.write_text(json.dumps({"format": FORMAT, **checkpoint.state}), encoding="utf-8")
    for stem, tensors in checkpoint.tensors.items():
        plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        save_file(plain, draft / f"{stem}.safetensors")
        # safetensors lets nobody else read its files; the user's umask is to decide.
        shutil.copymode(state, draft / f"{stem}.safetensors")
    sums = {file.name: _digest(file) for file in sorted(draft.iterdir())}
    (draft / "manifest.json").write_text(json.dumps(sums, indent=1), encoding="utf-8")


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _step_of(directory: Path) -> int:
    return int(directory.name[5:].removesuffix(REPLACED))


def _step_directories(folder: Path) -> list[Path]:
    """Directories of all finished checkpoints, newest first.

    Raises:
        ResourceError: the folder is there and cannot be read.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unreadable(error, folder) from None
    names = [name for name in names if name.startswith("step-")]
    steps = [name for name in sorted(names) if name[5:].removesuffix(REPLACED).isdecimal()]
    return sorted((folder / name for name in steps), key=_step_of, reverse=True)


def newest_step(folder: Path) -> int | None:
    """Step of the newest finished checkpoint, which is not opened; None if there is none."""
    return next((_step_of(directory) for directory in _step_directories(folder)), None)


def load(path: Path) -> Checkpoint:
    """Read one checkpoint after checking every file against the manifest.

    Raises:
        ArtifactError: a file is missing, changed, not what its name says, or of a newer format.
        ResourceError: a file may not be read.
    """
    try:
        digests: dict[str, str] = json.loads(read_regular(path / "manifest.json"))
        if unknown := sorted(digests.keys() - _FILES):
            raise ArtifactError(f"the manifest of {path} names {unknown[0]}, no checkpoint's file")
        for name, digest in digests.items():
            _require_regular(path / name)
            _refuse_pickle(path / name)
            if _digest(path / name) != digest:
                raise ArtifactError(f"{path / name} is corrupt: its checksum does not match")
        text = read_regular(path / "state.json")
        newer = json.loads(text)["format"] > FORMAT
    except PermissionError as error:
        raise _unreadable(error, path) from None
    except (OSError, ValueError, AttributeError, LookupError, TypeError, RecursionError) as error:
        raise ArtifactError(f"the checkpoint {path} is incomplete or corrupt: {error}") from error
    if "state.json" not in digests:
        raise ArtifactError(f"the checkpoint {path} is incomplete: its manifest knows no state")
    if newer:
        raise ArtifactError(f"the checkpoint {path} was made by a newer version of selfdistill")
    files = [path / name for name in digests if name.endswith(".safetensors")]
    checkpoint = Checkpoint({f.stem: read_tensors(f) for f in files}, _state(path, text))
    if checkpoint.state["step"] != _step_of(path):
        raise ArtifactError(f"{path} holds the checkpoint of another step")
    if fault := find_nonfinite_tensor(checkpoint.tensors):
        raise ArtifactError(f"{path} holds numbers in {fault} that are not finite")
    return checkpoint


def _state(path: Path, text: bytes) -> dict[str, Any]:
    try:
        return TrainingState.model_validate_json(text).model_dump()
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise ArtifactError(
            f"{path / 'state.json'} is no state of a training: {where}: {fault['msg'].lower()}"
        ) from None


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; any other file, above all a pickle, is refused unread."""
    try:
        _require_regular(file)
        _refuse_pickle(file)
        return load_file(file)
    except PermissionError as error:
        raise _unreadable(error, file) from None
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{file} is not a readable safetensors file: {error}") from error


def _require_regular(file: Path) -> None:
    """Raise unless it is a file: a pipe or a device would be read for ever."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise ArtifactError(f"{file} is no regular file")


def _unreadable(error: OSError, path: Path) -> ResourceError:
    reason = (error.strerror or str(error)).lower()
    return ResourceError(f"{error.filename or path} cannot be read: {reason}")


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
        ResourceError: they may not be read.
    """
    faults: list[str] = []
    for directory in _step_directories(folder):
        try:
            checkpoint = load(directory)
        except ArtifactError as error:
            faults.append(str(error))
            continue
        for fault in faults:
            warnings.warn(f"{fault}; {directory.name} is used instead", stacklevel=2)
        return checkpoint
    if faults:
        raise ArtifactError(f"{faults[0]}; no other checkpoint is left: start a new run by --out")
    return None
