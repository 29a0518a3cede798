"""Errors of all commands: one sentence on stderr, and an exit code."""

import errno
import functools
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ..errors import ConfigError, SelfdistillError, shortened
from ..recipe.document import check_plain_values
from ..runs.terminal import rank_zero
from ..signals import STOP_SIGNALS, Interrupted, handled, raise_interrupted
from .console import echo_stderr

_OUT_OF_MEMORY = (
    "can't allocate memory",
    "out of memory",
    "not enough memory",
    "size calculation overflowed",  # of a tensor of more bytes than an integer counts
    "integer multiplication overflow",
)
_ONE_VALUE = "more than 1 value per channel"  # torch's BatchNorm in training
_NOT_PERMITTED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
_NO_SUCH_PATH = {errno.ENAMETOOLONG, errno.ELOOP}
_MAX_MESSAGE = 2000
_STOP_SIGNALS = [number for number in STOP_SIGNALS if number != signal.SIGINT]  # Ctrl-C raises

# Warnings of libraries that a user cannot act on: patterns of how they begin.
_IGNORED_WARNINGS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"`broadcast_buffers` is deprecated",  # and to be kept, as it says itself, until a later torch
    r"The ``compute`` method of metric .* was called before the ``update`` method",
)


def handle_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap a command: it prints errors as `error: …` and warnings as `warning: …` on stderr."""

    @functools.wraps(command)
    def run(*args: Any, **keys: Any) -> None:
        try:
            with warnings.catch_warnings(), handled(raise_interrupted, *_STOP_SIGNALS):
                _print_warnings()
                _check_paths(*args, *keys.values())
                check_plain_values(keys)
                command(*args, **keys)
                sys.stdout.flush()
        except KeyboardInterrupt:
            echo_stderr("error", "stopped")
            raise SystemExit(130) from None
        except Interrupted as stop:
            echo_stderr("error", str(stop))
            raise SystemExit(128 + stop.number) from None
        except BrokenPipeError:  # `selfdistill models | head`: stdout is closed
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(141) from None
        except Exception as error:
            message, code = error_message(error, keys)
            if not message:
                traceback.print_exc()
                message = "this is a bug in selfdistill; please report it with the lines above"
            echo_stderr("error", message[:_MAX_MESSAGE])
            raise SystemExit(code) from None

    return run


def _check_paths(*values: Any) -> None:
    """Refuse a path that could be given to no other command, and was most likely meant as none."""
    for value in values:
        if isinstance(value, Path) and str(value).startswith("-"):
            raise ConfigError(
                f"the path {value} looks like an option: the value of the option before it is "
                "missing, or give the absolute path"
            )


def error_message(error: Exception, options: Collection[str] = ()) -> tuple[str, int]:
    """Message of an error and exit code; the message is empty for a bug.

    A remedy is one of the `options` that the command has.
    """
    if isinstance(error, SelfdistillError):
        return str(error), error.exit_code
    from torch import OutOfMemoryError  # slow to import, and few errors need it

    lightning = sys.modules.get("lightning_fabric.utilities.exceptions")  # slow to import
    if lightning and isinstance(error, lightning.MisconfigurationException):
        return str(error).splitlines()[0], 2
    text = str(error).lower()
    allocation = isinstance(error, RuntimeError) and any(part in text for part in _OUT_OF_MEMORY)
    if allocation or isinstance(error, MemoryError | OutOfMemoryError):
        smaller = "lower --batch-size, or split it by --accumulation-steps 2"
        if "accumulation_steps" not in options:
            smaller = _lower(options, "batch_size", "image_size")
        return f"the memory is full; {smaller}", 7
    if isinstance(error, RuntimeError) and "dataloader worker" in text:  # heard of in any line
        smaller = _lower(options, "num_workers", "batch_size", "image_size")
        return f"a process that decodes images died; {smaller}", 7
    if isinstance(error, ValueError) and _ONE_VALUE in text:
        return (
            "BatchNorm has a single value a channel to normalize by, since the feature of one "
            "image has shrunk to one cell and a forward pass sees one image; raise --batch-size"
        ), 4
    if isinstance(error, OSError) and error.errno in {*_NOT_PERMITTED, *_NO_SUCH_PATH}:
        path = f": {shortened(str(error.filename))}" if error.filename else ""
        code = 2 if error.errno in _NO_SUCH_PATH else 7
        return f"{(error.strerror or 'not allowed').lower()}{path}", code
    return "", 1


def _lower(options: Collection[str], *names: str) -> str:
    """What takes less memory: the first of these options that the command has."""
    option = next((name for name in names if name in options), None)
    if option is None:
        return "end other programs, or take a machine with more memory"
    return f"lower --{option.replace('_', '-')}"


def _print_warnings() -> None:
    """Print warnings as one line without the line of code, and in the first process only."""

    def show(message: Warning | str, *args: Any, **keys: Any) -> None:
        if rank_zero():
            echo_stderr("warning", str(message))

    warnings.showwarning = show
    for pattern in _IGNORED_WARNINGS:
        warnings.filterwarnings("ignore", pattern)
