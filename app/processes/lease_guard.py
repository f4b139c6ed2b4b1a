"""What ends a trainer whose worker no longer vouches for it."""

import ctypes
import os
import select
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from app.core.entities.trainer import TrainerExit
from app.utils.clock import boottime

CLOCK_BOOTTIME = 7  # linux/time.h
TIMER_ABSTIME = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class DeadlineTimer:
    """A kernel timer whose signal is left at its default: to end the process.

    No code of ours has to run when the deadline comes, so it comes also while C code holds the interpreter's
    lock, and first thing after the process was frozen. On Linux it counts time asleep (timer_create(2) on
    CLOCK_BOOTTIME); elsewhere it is setitimer(2).
    """

    def __init__(self) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        self._libc: Any = None
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._timer = ctypes.c_void_p()
            # No sigevent: the timer sends SIGALRM.
            self._checked(self._libc.timer_create(CLOCK_BOOTTIME, None, ctypes.byref(self._timer)))

    def set(self, deadline: float) -> None:
        """End the process at ``deadline`` (``boottime()``), at once if it is past."""
        if self._libc is None:
            signal.setitimer(signal.ITIMER_REAL, max(1e-6, deadline - boottime()))
            return
        seconds, fraction = divmod(max(deadline, 1e-9), 1)
        value = _Itimerspec(_Timespec(0, 0), _Timespec(int(seconds), int(fraction * 1e9)))
        self._checked(self._libc.timer_settime(self._timer, TIMER_ABSTIME, ctypes.byref(value), None))

    @staticmethod
    def _checked(status: int) -> None:
        if status != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


class LeaseGuard:
    """Reads the control pipe: ``renew DEADLINE``, ``stop``, and its end, which ends the process.

    What it reads it passes on to ``others``, the control pipes of the job's other ranks.
    """

    def __init__(self, control: int, deadline: float, stop: threading.Event, others: Sequence[int] = ()) -> None:
        self._others = others
        self._timer = DeadlineTimer()
        self._control = control
        self._rest = b""
        self._stop = stop
        # A start may take longer than the lease that it began with: what was said meanwhile counts.
        said = self._read() if select.select([control], [], [], 0)[0] else []
        renewals = [line for line in said if line.startswith("renew ")]
        for line in (*renewals[-1:], *(line for line in said if line not in renewals)):
            self._heed(line)
        if not renewals:
            self._timer.set(deadline)
        threading.Thread(target=self._listen, name="lease", daemon=True).start()

    def _listen(self) -> None:
        while True:
            for line in self._read():
                self._heed(line)

    def _heed(self, line: str) -> None:
        word, _, argument = line.partition(" ")
        if word == "renew":
            self._timer.set(float(argument))
        elif word == "stop":
            self._stop.set()
        for other in self._others:
            # One that is frozen does not read: a full pipe is left to its lease.
            with suppress(BrokenPipeError, BlockingIOError):
                os.write(other, f"{line}\n".encode("ascii"))

    def _read(self) -> Sequence[str]:
        """The next whole lines. Ends the process at the end of the pipe."""
        data = os.read(self._control, 65536)
        if not data:
            os._exit(TrainerExit.ABANDONED)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode("ascii").strip() for line in lines]
