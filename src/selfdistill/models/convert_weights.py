"""Program that reads a pickled weights file in a process of its own, and writes safetensors.

It imports torch and safetensors alone, so that it starts quickly: `python -I convert_weights.py
SOURCE TARGET`. A pickle of a stranger can ask for any amount of memory and time, and torch's reader
has had holes: here it has little of either, no network where the system allows to leave it, and
nothing of the caller's process to reach. A refusal is one line on stdout and
exit status `REFUSED`.
"""

import argparse
import ctypes
import json
import os
import pathlib
import sys
import zipfile
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

_NAMES = ("state_dict", "model", "model_state_dict", "net", "network", "student", "weights")
_EMA_NAMES = ("model_ema", "ema", "state_dict_ema", "ema_state_dict", "params_ema")
REFUSED = 3
"""Exit status where stdout says why."""

_SPARE_BYTES = 2 << 30  # beside three copies of the file
_SECONDS = 60
_NEW_USER, _NEW_NET = 0x10000000, 0x40000000  # of Linux's unshare(2)


def state_dict(loaded: Any) -> tuple[dict[str, Tensor], str]:
    """The state dict in what a file held, and a remark where it held several.

    It is the whole of it, or one of its entries: weights themselves before their averages.

    Raises:
        ValueError: there is none, or several of unknown meaning.
    """
    if _is_state_dict(loaded):
        return dict(loaded), ""
    entries = loaded if isinstance(loaded, Mapping) else {}
    # some wrap twice: {"model": {"state_dict": …}}
    inner = {k: v.get("state_dict", v) for k, v in entries.items() if isinstance(v, Mapping)}
    candidates = {k: v for k, v in inner.items() if isinstance(k, str) and _is_state_dict(v)}
    named = [name for name in (*_NAMES, *_EMA_NAMES) if name in candidates]
    if named or len(candidates) == 1:
        read = named[0] if named else next(iter(candidates))
        others = ", ".join(repr(name) for name in candidates if name != read)
        remark = f"{read!r} was read, and not {others}, of its entries; save the one that is meant"
        return dict(candidates[read]), f"{remark} by itself" if others else ""
    if candidates:
        raise ValueError(
            f"hold several state dicts ({', '.join(candidates)}); save the one that is meant by "
            "itself"
        )
    raise ValueError("hold no state dict (tensors by name)")


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def plain_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Dense copies on the CPU that share no memory.

    Raises:
        ValueError: a tensor is of a kind that holds no weights.
    """
    for name, tensor in state.items():
        kind = (
            "quantized" if tensor.is_quantized
            else "without values (meta)" if tensor.is_meta
            else "sparse" if tensor.layout is not torch.strided
            else "complex" if tensor.is_complex()
            else ""
        )  # fmt: skip
        if kind:
            raise ValueError(f"hold {name}, which is {kind}; give dense floating-point tensors")
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}


def check_archive(path: str) -> None:
    """Raises `ValueError` if a zip file would unpack to more than it is; torch never compresses."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("are a compressed archive, which torch never writes")
    if sum(entry.file_size for entry in entries) > os.path.getsize(path):
        raise ValueError("are an archive that claims to hold more than it does")


def limit_process(size: int) -> None:
    """Limit memory to what a file of this size needs, and processor time; leave the network."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) if _is_linux() else 0
    if pages:
        total = pages * os.sysconf("SC_PAGE_SIZE") + 3 * size + _SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (total, total))
    seconds = int(resource.getrusage(resource.RUSAGE_SELF).ru_utime) + _SECONDS + size // 10_000_000
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    if _is_linux():  # fails where user namespaces are off: the other limits still hold
        ctypes.CDLL(None).unshare(_NEW_USER | _NEW_NET)


def _is_linux() -> bool:
    return sys.platform == "linux"


def _harmless() -> list[Any]:
    """Types beside tensors that training scripts leave in checkpoints, and that hold data only."""
    import numpy as np

    scalar = np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(name)) for name in ("f2", "f4", "f8", "i4", "i8", "u1", "bool")]
    return [argparse.Namespace, pathlib.PosixPath, scalar, np.dtype, *dtypes]


def convert(source: str, target: str) -> None:
    """Read a pickled file and write its state dict as safetensors.

    Raises:
        ValueError: it holds no weights.
    """
    check_archive(source)
    with torch.serialization.safe_globals(_harmless()):
        loaded = torch.load(source, map_location="cpu", weights_only=True)
    state, remark = state_dict(loaded)
    tensors = plain_tensors(state)
    order = json.dumps(list(tensors))  # safetensors sorts by name
    save_file(tensors, target, metadata={"order": order, "remark": remark})


if __name__ == "__main__":
    limit_process(os.path.getsize(sys.argv[1]))
    try:
        convert(sys.argv[1], sys.argv[2])
    except ValueError as error:
        sys.stdout.write(str(error))
        sys.exit(REFUSED)
