"""The other processes of a job that trains in many, on this host: started, watched and ended by its rank 0.

They are of rank 0's session, die with it (PR_SET_PDEATHSIG, and a pipe whose end ends them), and are vouched for
by the worker as it is: each has the lease's timer, and rank 0 passes on what the worker says.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.entities.trainer import TrainerExit

GRACE_SECONDS = 5.0  # for rank 0 to end by itself, after another has
END_SECONDS = 10.0  # for the others, after rank 0 has done its work


@dataclass(frozen=True, slots=True)
class Lost:
    """A rank that ended before its time: how the whole attempt ends for it, and what result.json says."""

    status: TrainerExit
    written: Mapping[str, Any]
    may_be_echo: bool = False  # of another's end: what it met in a call that wanted both


class Ranks:
    """``count`` processes in all; rank 0 is this one. ``controls`` are the pipes to the others."""

    def __init__(self, job: Path, count: int) -> None:
        self._job, self._count = job, count
        pipes = [os.pipe() for _ in range(1, count)]
        self._ends = [read for read, _ in pipes]
        self.controls = [write for _, write in pipes]
        for control in self.controls:
            os.set_blocking(control, False)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._found: list[Lost] = []
        self._lost = threading.Event()
        self._over = False

    def start(self, on_lost: Callable[[Lost], None]) -> None:
        """``on_lost`` is called, in another thread, when one ended before its time and rank 0 did not follow."""
        for rank, end in enumerate(self._ends, 1):
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "app.processes.trainer", str(self._job)),
                    *("--rank", str(rank), "--control", str(end), "--parent", str(os.getpid())),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=(end,),
            )
            os.close(end)
            self._processes.append(process)
            threading.Thread(target=self._watch, args=(rank, process), name=f"rank-{rank}", daemon=True).start()
        threading.Thread(target=self._end, args=(on_lost,), name="ranks", daemon=True).start()

    def lost(self) -> Lost | None:
        """The first that ended before its time, if one has or is about to: the cause of what rank 0 met."""
        return self._first() if self._processes and self._lost.wait(GRACE_SECONDS / 2) else None

    def close(self) -> None:
        """After rank 0's work: no rank is left."""
        with self._lock:
            self._over = True
        for process in self._processes:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _watch(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        status = process.wait()
        with self._lock:
            if self._over or status in (TrainerExit.SUCCEEDED, TrainerExit.STOPPED):
                return
            self._found.append(self._why(rank, status))
        self._lost.set()

    def _end(self, on_lost: Callable[[Lost], None]) -> None:
        self._lost.wait()
        time.sleep(GRACE_SECONDS)
        with self._lock:  # whoever has it has the last word
            if not self._over:
                for process in self._processes:
                    process.kill()
                on_lost(self._first())

    def _first(self) -> Lost:
        return min(self._found, key=lambda lost: lost.may_be_echo)

    def _why(self, rank: int, status: int) -> Lost:
        which = f"rank {rank} of {self._count}"
        if status in (TrainerExit.ABANDONED, -signal.SIGALRM):
            return Lost(TrainerExit.ABANDONED, {"code": "lease_ended", "message": f"{which}: its lease ended"})
        if status == TrainerExit.FAILED:
            written = json.loads(result_of(self._job, rank).read_text("utf-8"))
            named = {**written, "message": f"{which}: {written['message']}"}
            return Lost(TrainerExit.FAILED, named, may_be_echo=written["code"] == "trainer_failed")
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
        message = f"{which} ended {how} before its time; see the run's logs.txt"
        return Lost(TrainerExit.FAILED, {"code": "rank_lost", "message": message, "faults": []})


def result_of(job: Path, rank: int) -> Path:
    return job.parent / ("result.json" if rank == 0 else f"result-{rank}.json")
