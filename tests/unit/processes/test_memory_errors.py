"""What an error's words say of how much memory was missing."""

import errno

import pytest

from app.processes.memory_errors import is_out_of_memory, shortage

ON_GPU = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB of which 512.00 MiB "
    "is free. Including non-PyTorch memory, this process has 15.00 GiB memory in use. Of the allocated memory …"
)


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (OutOfMemoryError("…"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("std::bad_alloc"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("shapes differ"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_an_error_for_want_of_memory_is_known(error: Exception, is_one: bool) -> None:
    assert is_out_of_memory(error) is is_one


def test_a_gpu_says_itself_what_it_had() -> None:
    found = shortage(OutOfMemoryError(ON_GPU))
    assert (found.wanted_bytes, found.available_bytes) == (17 * 2**30, 15 * 2**30 + 2**29)
    assert found.in_words() == "it wanted 18.3 GB and could have 16.6 GB: 1.6 GB too few"


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ("can't allocate memory: you tried to allocate 9007199254740992 bytes. Error code 12", 2**53),
        ("Unable to allocate 8192. TiB for an array with shape (1,) and data type uint8", 2**53),
    ],
)
def test_on_the_host_it_is_what_the_process_holds_and_what_is_left(said: str, asked: int) -> None:
    found = shortage(MemoryError(said))
    assert 0 < found.wanted_bytes - asked < found.available_bytes < asked


def test_an_error_without_a_figure_says_what_there_was() -> None:
    found = shortage(MemoryError())
    assert found.wanted_bytes == found.available_bytes > 0
    assert "there was no more" in found.in_words()
