"""Memory of this host that a process to come may take."""

from contextlib import suppress
from pathlib import Path

import psutil

_GROUPS = (  # limit, usage, and what of the usage is files that can be dropped: cgroup v2, v1
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_bytes() -> int:
    """Without swapping, and within the limit of the container that this process is in."""
    return min([int(psutil.virtual_memory().available), *_left_in_groups()])


def _left_in_groups() -> list[int]:
    left = []
    for folder, limit, usage, dropped in _GROUPS:
        with suppress(OSError, ValueError, KeyError):  # there is no such group, or it says max: no limit
            most, used = (int((folder / name).read_text("ascii")) for name in (limit, usage))
            stat = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
            left.append(most - used + int(stat[dropped]))
    return left
