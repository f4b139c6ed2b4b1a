"""A trainer that is started before its job is known, its imports done: docs/trainer-protocol.md."""

import json
import logging
import os
import select
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from app.implementations.queue.process_tree import kill_session
from app.implementations.queue.trainer_process import TrainerProcess, start_process
from app.utils.project import ROOT

LOG_CHARACTERS = 600  # of what one printed, in the worker's log, when it has ended

log = logging.getLogger(__name__)


class SpareTrainer:
    """Of the thread that makes it: the system ends the process with that thread. ``base`` is a base model's folder
    that the job may want, ``variables`` what its environment has of its own.
    """

    def __init__(self, runner: str, base: Path | None, variables: Mapping[str, str]) -> None:
        arguments = ["--runner", runner, "--parent", str(os.getpid())]
        if base is not None:
            arguments += ["--base", str(base)]
        self._variables = variables
        self._code = newest_code()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the rest
        self._started = start_process("app.processes.spare", arguments, variables, self._output)
        self._is_prepared = False

    @property
    def pid(self) -> int:
        return self._started.process.pid

    @property
    def is_alive(self) -> bool:
        return self._started.process.poll() is None

    @property
    def is_prepared(self) -> bool:
        """Whether it got as far as to wait for a job."""
        if not self._is_prepared and select.select([self._started.ring], [], [], 0)[0]:
            self._is_prepared = os.read(self._started.ring, 1) != b""  # empty: it has ended
            if self._is_prepared:
                log.info("spare trainer %d is prepared", self.pid)
        return self._is_prepared

    def fits(self, variables: Mapping[str, str]) -> bool:
        """Whether its job would start as in a new process, and sooner."""
        # One that is not prepared yet has the lowest priority: whatever else runs may keep it from the processor.
        return self.is_prepared and self._variables == variables and self._code == newest_code()

    def hand_over(self, job: Path) -> TrainerProcess | None:
        """From now on it is the trainer of this job file; None if it is gone."""
        try:
            os.write(self._started.control, f"job {json.dumps(str(job))}\n".encode("ascii"))
        except BrokenPipeError:
            self.end()
            return None
        self._output.close()  # it writes to the run's logs.txt by now
        return self._started

    def last_words(self) -> str:
        """What it has printed, the end of it."""
        size = os.fstat(self._output.fileno()).st_size
        said = os.pread(self._output.fileno(), LOG_CHARACTERS, max(0, size - LOG_CHARACTERS))
        return said.decode("utf-8", "replace").strip()

    def end(self) -> None:
        """Returns when it is gone."""
        kill_session(self.pid)
        self._started.process.wait()
        self._output.close()
        os.close(self._started.ring)
        os.close(self._started.control)


class SpareTrainers(threading.local):
    """One at most for each slot of the worker, which is a thread."""

    def __init__(self, runner: str) -> None:
        self._runner = runner
        self._spare: SpareTrainer | None = None
        self._in_vain = False  # whether to start one

    def prepare(self, base: Path | None, variables: Mapping[str, str]) -> None:
        """Have one, unless the last has ended before it was prepared: so would the next, until a job has run."""
        is_prepared = self._spare is not None and self._spare.is_prepared
        if self._spare is not None and not self._spare.is_alive:
            self._in_vain = not is_prepared
            how = "" if is_prepared else " unprepared; there is no other until a job has run"
            log.warning("spare trainer %d has ended%s: %s", self._spare.pid, how, self._spare.last_words())
            self.dismiss()
        if self._spare is None and not self._in_vain:
            self._spare = SpareTrainer(self._runner, base, variables)

    def take(self, job: Path, variables: Mapping[str, str]) -> TrainerProcess | None:
        """The spare as the trainer of this job file; None where there is none that fits."""
        spare, self._in_vain = self._spare, False
        if spare is None or not spare.fits(variables):
            return None
        self._spare = None
        return spare.hand_over(job)

    def dismiss(self) -> None:
        if self._spare is not None:
            self._spare.end()
        self._spare = None


def newest_code() -> int:
    """Changes when the code does: a job is trained by what is there when it starts."""
    files = (file for folder in ("app", "config") for file in (ROOT / folder).rglob("*.py"))
    try:
        return max(file.stat().st_mtime_ns for file in files)
    except OSError:  # one went while we looked: it changes
        return time.time_ns()
