"""What the system is told about memory that this process has no more use for."""

import ctypes
import mmap
import sys
from functools import cache
from typing import Any

import torch

MADV_PAGEOUT = 21  # asm-generic/mman-common.h: unlike MADV_DONTNEED it loses nothing that is still in use


def let_go(tensor: torch.Tensor) -> None:
    """Its pages may leave memory now. Weights that were read from a file by mapping it, and copied, would stay in
    memory beside their copies for as long as any other weight of that file is in use."""
    if tensor.device.type != "cpu" or sys.platform != "linux":
        return
    start = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    length = tensor.data_ptr() + tensor.untyped_storage().nbytes() - start
    if length >= mmap.PAGESIZE:
        _libc().madvise(
            ctypes.c_void_p(start), ctypes.c_size_t(length // mmap.PAGESIZE * mmap.PAGESIZE), MADV_PAGEOUT
        )


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)
