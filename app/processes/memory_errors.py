"""Errors that say that memory ran out, and by how much. Known by name and words: torch is not imported here."""

import errno
import re
import resource

import psutil

from app.core.entities.forecasts import Shortage
from app.implementations.models.host_memory import available_bytes

# torch's, and libstdc++'s
OUT_OF_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc")
UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = r"([\d.]+) (bytes|KiB|MiB|GiB|TiB)"
ASKED = re.compile(rf"(?:tried to|unable to) allocate {_SIZE}", re.IGNORECASE)  # torch's, numpy's
HELD_ON_GPU = re.compile(rf"this process has {_SIZE} memory in use")
FREE_ON_GPU = re.compile(rf"of which {_SIZE} is free")


def is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in OUT_OF_MEMORY_WORDS)


def shortage(error: Exception) -> Shortage:
    """To be asked while ``error`` is at hand: what its frames hold still counts."""
    said = str(error)
    if (on_gpu := _size(HELD_ON_GPU, said)) is not None:
        held, free = on_gpu, _size(FREE_ON_GPU, said) or 0
    else:
        held, free = psutil.Process().memory_info().rss, _left()
    asked = _size(ASKED, said) or 0
    return Shortage(held + asked, held + min(free, asked))  # others may have let go of some since


def _left() -> int:
    """Bytes that the host and this process' own limits leave it."""
    used = psutil.Process().memory_info()
    left = [available_bytes()]
    for limit, taken in ((resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, getattr(used, "data", 0))):
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY:
            left.append(max(0, most - taken))
    return min(left)


def _size(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return None if found is None else round(float(found[1]) * UNITS[found[2]])
