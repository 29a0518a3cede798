"""Files and directories that appear in one atomic move, complete and flushed to the disk."""

import errno
import glob
import os
import platform
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import ArtifactError, ResourceError, RunBusyError

MAX_TEXT = 64 << 20
"""Bytes of a text file that a run or a study leaves, by default."""
REPLACED = ".replaced"
"""Ending of a directory's name while another one takes its place, and after a kill meanwhile."""
_MAX_HOST = 16  # signs of the machine's name in that of a draft, which a shared disk may hold


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
        replace: whether a directory that is at `path` gives way; so that a kill leaves one of the
            two, it is renamed, by `REPLACED`, and removed at the end.

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
        aside = path.with_name(path.name + REPLACED)
        if replace and path.exists():
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
        draft.rename(path)
        sync(path.parent)
        if replace:
            shutil.rmtree(aside, ignore_errors=True)
    except ResourceError:
        raise
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):  # another process was faster
            raise RunBusyError(f"{path} exists already; name another folder") from None
        raise ResourceError(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_atomically(path: Path, content: str | bytes) -> Path:
    """Replace a file in one atomic move; text is written as UTF-8 with its line ends unchanged.

    Raises:
        ResourceError: the disk is full, or the directory cannot be written.
    """
    with atomic_file(path) as draft:
        draft.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def read_regular(path: Path, max_bytes: int = MAX_TEXT) -> bytes:
    """The content of a regular file: a pipe or a device would be read for ever.

    Raises:
        ArtifactError: it is something else, or larger than `max_bytes`.
        OSError: it is missing, or may not be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactError(f"{path} is no regular file")
    if status.st_size > max_bytes:
        raise ArtifactError(f"{path} has more than {max_bytes >> 20:,} MiB, which none ever has")
    return path.read_bytes()


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
    """A hidden name beside the path that no other process uses; those of dead ones are removed."""
    start = f".{path.name}.{platform.node()[:_MAX_HOST]}-"
    for stale in path.parent.glob(f"{glob.escape(start)}*"):
        number = stale.name.removeprefix(start)
        if number.isdecimal() and not _is_alive(int(number)):
            _remove(stale)
    return path.with_name(f"{start}{os.getpid()}")


def remove_stale_drafts(folder: Path) -> None:
    """Remove the drafts of files in a folder that processes of this machine died writing."""
    for stale in folder.glob(f".*.{glob.escape(platform.node()[:_MAX_HOST])}-*"):
        number = stale.name.rpartition("-")[2]
        if number.isdecimal() and not _is_alive(int(number)):
            _remove(stale)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
