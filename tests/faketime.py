"""A wall clock that a test moves, for processes that are started with ``environment``: libfaketime's."""

import os
from pathlib import Path

from tests.servers import missing

# libfaketime 0.9.10 moves absolute times of every clock, where it should move those of the wall clock alone, and
# then the kernel finds them invalid: in clock_nanosleep(2), which is time.sleep, and in timer_settime(2). So the
# one is left out, and ctypes looks for the other in the C library itself.
_SITECUSTOMIZE = """
import ctypes, threading, time

load = ctypes.CDLL
ctypes.CDLL = lambda name, *arguments, **options: load(name or "libc.so.6", *arguments, **options)
time.sleep = lambda seconds: threading.Event().wait(seconds)
"""


class FakeTime:
    """``folder`` gets two files. Without the library the test is skipped, and fails under ``CI=true``."""

    def __init__(self, folder: Path) -> None:
        libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        library = libraries[0] if libraries else missing("libfaketime.so.1", "libfaketime")
        self._offset = folder / "offset"
        self.move(0)
        (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_NO_CACHE": "1",  # the file is read at each look at the clock
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])),
        }

    def move(self, seconds: int) -> None:
        """The wall clock, to so long after (or before) the true one."""
        temporary = self._offset.with_name("offset.new")
        temporary.write_text(f"{seconds:+d}\n")
        temporary.replace(self._offset)
