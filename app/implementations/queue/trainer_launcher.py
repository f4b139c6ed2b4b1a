"""Trainer processes, by the protocol of docs/trainer-protocol.md."""

import json
import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.core.entities.forecasts import Shortage
from app.core.entities.jobs import JobEvent
from app.core.entities.trainer import TrainerExit
from app.core.errors import Fault
from app.core.interfaces.operations import TrainerHandle, TrainerLauncher, TrainerOutcome
from app.core.services.jobs.room import RUN_FOLDER
from app.implementations.queue.event_file import EventFile
from app.implementations.queue.process_tree import kill_session
from app.implementations.queue.spare_trainer import SpareTrainers
from app.implementations.queue.trainer_process import start_process
from app.utils.files import write_whole
from app.utils.project import python_path

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# oneDNN, and torch's layer above it, keep what they prepared for the last 1,024 shapes of a product. Hardly two
# packs are alike: a run would grow by 10 MB a step for nothing. Within a step all layers have the same shapes.
SHAPE_CACHES = {"LRU_CACHE_CAPACITY": "64", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256"}
LOG_CHARACTERS = 600  # of logs.txt in the worker's log, when a trainer crashes
OUT_OF_MEMORY = "the system ended the trainer for want of memory; lower batch_size or max_length"

log = logging.getLogger(__name__)


class ProcessTrainerLauncher(TrainerLauncher):
    """``spares_for`` is the runner that spare processes are made for, when it is told to; None: there are none."""

    def __init__(self, spares_for: str | None = None) -> None:
        self._spares_for = spares_for
        self._spares = SpareTrainers(spares_for) if spares_for else None
        self._last_base: Path | None = None

    def start(self, job_file: Mapping[str, Any], attempt_folder: Path, deadline: float) -> TrainerHandle:
        path = attempt_folder / "job.json"
        whole = {"processes": 1, **job_file, "deadline": deadline}
        write_whole(path, json.dumps(whole, ensure_ascii=False, indent=2))
        logs = Path(job_file["run_folder"]) / "logs.txt"
        fits_spare = (job_file["runner"], whole["processes"]) == (self._spares_for, 1)
        if fits_spare:
            self._last_base = Path(job_file["base_model_folder"])
        # Taken before the start, so that whatever the kernel kills from here on counts.
        oom_kills = _oom_kills()
        variables = _variables(int(job_file["threads"]), job_file.get("gpus"))
        started = None
        if self._spares and fits_spare:
            started = self._spares.take(path, variables)
        self.dismiss()
        if started is None:
            with logs.open("ab") as output:
                started = start_process("app.processes.trainer", [str(path)], variables, output)
        return ProcessTrainerHandle(
            started.process, started.ring, started.control, attempt_folder, logs, oom_kills
        )

    def prepare(self, threads: int, gpus: str | None) -> None:
        if self._spares:
            self._spares.prepare(self._last_base, _variables(threads, gpus))

    def dismiss(self) -> None:
        if self._spares:
            self._spares.dismiss()

    def earlier_events(
        self, run_folder: Path, job_id: str, before: int, last_known: Callable[[int], int]
    ) -> Iterator[tuple[int, Sequence[JobEvent]]]:
        folders: dict[int, Path] = {}
        for path in run_folder.glob("attempts/*/job.json"):
            written = json.loads(path.read_text("utf-8"))
            # A run folder that was taken over has another job's attempts too.
            is_earlier = written["job_id"] == job_id and written["attempt"] < before
            if is_earlier and (path.parent / "events.ndjson").is_file():
                folders[written["attempt"]] = path.parent
        for attempt, folder in sorted(folders.items()):
            file = EventFile(folder / "events.ndjson", after=last_known(attempt))
            while events := file.read():
                yield attempt, events


class ProcessTrainerHandle(TrainerHandle):
    """The worker's end of one trainer. ``renew`` may be called from another thread than the rest."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        ring: int,
        control: int,
        attempt_folder: Path,
        logs: Path,
        oom_kills: int | None,
    ) -> None:
        self._process = process
        self._ring = open(ring, "rb", buffering=0)  # noqa: SIM115 - closed with the handle
        self._control = open(control, "wb", buffering=0)  # noqa: SIM115
        os.set_blocking(ring, False)
        os.set_blocking(control, False)
        self._control_lock = threading.Lock()
        self._folder = attempt_folder
        self._logs = logs
        self._oom_kills = oom_kills
        self._events = EventFile(attempt_folder / "events.ndjson")
        self._killed = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        readable, _, _ = select.select([self._ring], [], [], seconds)
        if readable and self._ring.read(65536) == b"":  # closed: the trainer ends or has ended
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, until - time.monotonic()))
        return self._process.poll() is not None

    def new_events(self) -> Sequence[JobEvent]:
        return self._events.read()

    def renew(self, deadline: float) -> None:
        self._say(f"renew {deadline!r}\n")

    def stop(self) -> None:
        self._say("stop\n")

    def kill(self) -> None:
        if self._ring.closed:
            return
        self._killed = self._process.poll() is None
        kill_session(self._process.pid)
        self._process.wait()
        self._ring.close()
        with self._control_lock:
            self._control.close()

    def outcome(self) -> TrainerOutcome:
        status = self._process.wait()
        if status in (TrainerExit.SUCCEEDED, TrainerExit.FAILED):
            with suppress(OSError, ValueError, KeyError):
                return self._written(status)
        if status == TrainerExit.STOPPED:
            return TrainerOutcome("stopped")
        if status in (TrainerExit.ABANDONED, -signal.SIGALRM):
            return TrainerOutcome("crashed", "lease_ended", "the lease of the attempt ran out")
        if status == TrainerExit.DISK_FULL:
            return TrainerOutcome("failed", "disk_full", f"the disk is full: {RUN_FOLDER}")
        return self._crash(status)

    def _written(self, status: int) -> TrainerOutcome:
        written = json.loads((self._folder / "result.json").read_text("utf-8"))
        if status == TrainerExit.SUCCEEDED:
            return TrainerOutcome("succeeded", result=written["result"])
        faults = tuple(Fault(**fault) for fault in written["faults"])
        memory = written.get("memory")
        shortage = Shortage(**memory) if memory else None
        return TrainerOutcome("failed", written["code"], written["message"], faults=faults, shortage=shortage)

    def _crash(self, status: int) -> TrainerOutcome:
        oom_kills = _oom_kills()
        if (
            status == -signal.SIGKILL
            and not self._killed
            and oom_kills is not None
            and oom_kills != self._oom_kills
        ):
            return TrainerOutcome("crashed", "out_of_memory", OUT_OF_MEMORY)
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
        # Its last words may hold paths and exceptions: for the operator, not for the client.
        log.error("the trainer in %s ended %s; its log ends: %s", self._folder, how, _tail(self._logs))
        return TrainerOutcome("crashed", "trainer_failed", f"the trainer ended {how}; see the run's logs.txt")

    def _say(self, line: str) -> None:
        # A trainer that is frozen does not read: a full pipe is left to its lease.
        with self._control_lock, suppress(BrokenPipeError, BlockingIOError):
            if not self._control.closed:
                self._control.write(line.encode())


def _variables(threads: int, gpus: str | None) -> dict[str, str]:
    """Return what the environment of a trainer has of its own."""
    return {
        **dict.fromkeys(THREAD_VARIABLES, str(threads)),
        **({} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus}),
        "PYTHONPATH": python_path(),
        **SHAPE_CACHES,
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _oom_kills() -> int | None:
    """How many processes this host has ended for want of memory since it started; None where it does not say."""
    try:
        counters = dict(line.split() for line in Path("/proc/vmstat").read_text("ascii").splitlines())
        return int(counters["oom_kill"])
    except (OSError, KeyError, ValueError):
        return None


def _tail(logs: Path) -> str:
    try:
        return logs.read_bytes()[-LOG_CHARACTERS:].decode("utf-8", "replace").strip()
    except OSError:
        return ""
