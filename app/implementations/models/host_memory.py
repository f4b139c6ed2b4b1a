"""Memory of this host that a process to come may take."""

import subprocess
from contextlib import suppress
from pathlib import Path

import psutil

_GROUPS = (  # limit, usage, and what of the usage is files that can be dropped: cgroup v2, v1
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_bytes(device: str = "cpu") -> int:
    """Of the GPU where a config's ``device`` means one. Else of the host: without swapping, and within the limit
    of the container that this process is in."""
    if device in ("auto", "cuda") and (free := _free_on_gpu()) is not None:
        return free
    return min([int(psutil.virtual_memory().available), *_left_in_groups()])


def _left_in_groups() -> list[int]:
    left = []
    for folder, limit, usage, dropped in _GROUPS:
        with suppress(OSError, ValueError, KeyError):  # there is no such group, or it says max: no limit
            most, used = (int((folder / name).read_text("ascii")) for name in (limit, usage))
            stat = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
            left.append(most - used + int(stat[dropped]))
    return left


def _free_on_gpu() -> int | None:
    """Of the first one; torch, which would know, is not in every process that asks."""
    command = ["nvidia-smi", "--id=0", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=5).stdout
        return int(said.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):  # there is no NVIDIA driver
        return None
