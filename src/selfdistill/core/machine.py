"""The machine, the versions and the command behind a result."""

import os
import platform
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("selfdistill", "torch", "torchvision", "timm", "lightning-fabric", "torchmetrics")


def num_cores() -> int:
    """Number of CPU cores that this process may use: of a cluster, those of its job."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_fast_bfloat16(device_type: str) -> bool:
    """Whether a device has instructions that multiply bfloat16.

    GPUs from Ampere on and x86 with AMX or AVX512_BF16 are known to. Others compute in float32 and
    round, which is slower than float32 alone. oneDNN's variable `ONEDNN_MAX_CPU_ISA`, which keeps
    it from such instructions, is heeded.
    """
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device_type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "DEFAULT"
    if not any(part in limit.upper() for part in ("DEFAULT", "ALL", "BF16", "AMX")):
        return False
    # public in later releases alone: torch.cpu.get_capabilities
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)


def environment() -> dict[str, Any]:
    """Command, commit, versions and hardware of this process, as JSON can hold them."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": git_commit(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "system": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def describe_machine(device: str = "cpu") -> str:
    """The processor and its number of threads, or the name of the GPU, of a device type."""
    if device == "cpu":
        count = torch.get_num_threads()
        return f"{processor_name()}, {count} thread{'s' * (count > 1)}"
    return torch.cuda.get_device_name() if device == "cuda" else device


def processor_name() -> str:
    """The model of the processor where Linux names it, else its architecture."""
    table = Path("/proc/cpuinfo")
    text = table.read_text(encoding="utf-8") if table.exists() else ""
    model = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return model[1] if model else platform.processor() or platform.machine()


def git_commit() -> str | None:
    """The commit of this code, if it runs from a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
