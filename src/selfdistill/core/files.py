"""Files and directories that appear in one atomic move, complete and flushed to the disk."""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ArtifactError, ResourceError, RunBusyError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A draft to write, which replaces the file at `path` unless the block fails.

    Raises:
        ResourceError: the disk is full, or the directory cannot be written.
    """
    draft = _draft(path)
    try:
        yield draft
        sync(draft)
        draft.replace(path)
    except ResourceError:
        raise
    except OSError as error:
        raise ResourceError(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A draft directory to fill with files, which moves to `path` unless the block fails.

    Args:
        path: where it is to appear; its parents are made.
        replace: whether a directory that is at `path` is removed first.

    Raises:
        RunBusyError: there is a directory at `path`, which is not to be replaced.
        ResourceError: the disk is full, or the directory cannot be written.
    """
    draft = _draft(path)
    try:
        draft.mkdir(parents=True)
        yield draft
        for file in draft.iterdir():
            sync(file)
        sync(draft)
        if replace and path.exists():
            shutil.rmtree(path)
        draft.rename(path)
        sync(path.parent)
    except ResourceError:
        raise
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):  # another process was faster
            raise RunBusyError(f"{path} exists already; name another folder") from None
        raise ResourceError(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def read_bytes(path: Path) -> bytes:
    """The content of a regular file; a pipe or a device, which would be read for ever, is refused.

    Raises:
        ArtifactError: it is none.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ArtifactError(f"{path} is no regular file and was not read; put a file in its place")
    return path.read_bytes()


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Replace a file in one atomic move; text is written as UTF-8 with its line ends unchanged.

    Raises:
        ResourceError: the disk is full, or the directory cannot be written.
    """
    with atomic_file(path) as draft:
        draft.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def apply_umask(path: Path) -> None:
    """Give a file the rights that the user's umask leaves to a new one."""
    probe = _draft(path)
    try:
        probe.touch()
        shutil.copymode(probe, path)
    finally:
        probe.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file or a directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _draft(path: Path) -> Path:
    """A hidden name beside the path that no other process uses."""
    return path.with_name(f".{path.name}.{os.getpid()}")
