"""The processes that a supervisor starts, watches and ends."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds before a child that died is started again
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass
class Child:
    """One process, started again when it dies. ``explain`` says what mends an exit status that will recur."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    descriptors: Sequence[int] = ()
    explain: Callable[[int], str | None] = lambda status: None
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0  # in a row
    explained: str | None = None
    _start_at: float = 0.0
    _started_at: float = field(default=0.0, init=False)

    def tend(self) -> None:
        """Start it, or notice that it died and plan its next start."""
        now = time.monotonic()
        if self.process is None:
            if now >= self._start_at:
                self._start(now)
            return
        status = self.process.poll()
        if status is None:
            return
        self.process = None
        self._plan(status, now)

    def _start(self, now: float) -> None:
        self._started_at = now
        self.process = subprocess.Popen(
            self.command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            pass_fds=self.descriptors,
            start_new_session=True,
            preexec_fn=die_with(os.getpid(), signal.SIGTERM),
        )

    def _plan(self, status: int, now: float) -> None:
        if explanation := self.explain(status):
            if explanation != self.explained:
                say(explanation)
            self.explained = explanation
            self._start_at = now + LONGEST_PAUSE
            return
        self.explained = None
        self.failures = 1 if now - self._started_at >= LONGEST_PAUSE else self.failures + 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (self.failures - 1))
        say(f"{self.name} ended (status {status}); it starts again in {pause:g} s")
        self._start_at = now + pause

    def terminate(self) -> None:
        if self.process is not None:
            self.process.terminate()

    def has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None


def say(line: str) -> None:
    print(f"run.py: {line}", file=sys.stderr, flush=True)


def die_with(parent: int, number: signal.Signals) -> Callable[[], None] | None:
    """For the child to call: it gets this signal when its parent is killed."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def arm() -> None:
        prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it was killed before that
            os._exit(1)

    return arm
