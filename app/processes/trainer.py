"""One attempt at a job in a process of its own: docs/trainer-protocol.md.

``python -m app.processes.trainer JOB.json --ring FD --control FD``, started by a worker. The other ranks of a job
of many processes are started by this one, with ``--rank`` in place of ``--ring``, or on many hosts by torchrun.
"""

import argparse
import io
import json
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.bootstrap import build_runner
from app.core.entities.trainer import TrainerExit
from app.core.errors import AppError, Invalid
from app.core.interfaces.components import Reporter, TrainingStopped
from app.core.services.jobs.room import RUN_FOLDER
from app.processes.children import die_with
from app.processes.lease_guard import LeaseGuard
from app.processes.memory_errors import is_out_of_memory, shortage
from app.processes.placement import TORCHRUN, cores, placement_of, share_of_threads, torchrun_placement
from app.processes.ranks import Lost, Ranks, result_of
from app.utils.files import write_whole
from app.utils.folders import is_disk_full
from app.utils.tracebacks import print_traceback


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m app.processes.trainer")
    parser.add_argument("job", type=Path, help="the job file")
    parser.add_argument("--ring", type=int, help="descriptor to write a byte to at each event")
    parser.add_argument("--control", type=int, required=True, help="descriptor of the worker's orders")
    parser.add_argument(
        "--rank", type=int, default=0, help="of a job's many processes; it reports and saves nothing"
    )
    parser.add_argument("--parent", type=int, help="the process id of rank 0")
    chosen = parser.parse_args(arguments)
    if chosen.parent is not None and (arm := die_with(chosen.parent, signal.SIGKILL)):
        arm()
    for descriptor in filter(None, (chosen.ring, chosen.control)):
        os.set_inheritable(descriptor, False)

    raw = json.loads(chosen.job.read_text("utf-8"))
    placement = placement_of(raw, chosen.job.parent, chosen.rank)
    by_torchrun = placement.rendezvous == TORCHRUN
    ranks = Ranks(chosen.job, 1 if by_torchrun or chosen.rank else placement.processes)
    stop = threading.Event()
    LeaseGuard(chosen.control, raw["deadline"], stop, ranks.controls)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")

    folder = chosen.job.parent
    report = Quiet(stop) if chosen.rank else EventWriter(folder / "events.ndjson", chosen.ring, stop)

    def write(written: Mapping[str, Any] | None) -> None:
        if written is not None and (chosen.rank == 0 or "code" in written):
            write_whole(result_of(chosen.job, chosen.rank), json.dumps(written, ensure_ascii=False))

    def end(lost: Lost) -> None:
        report.message(lost.written["message"], "error")
        write(lost.written)
        os._exit(lost.status)

    def work() -> Mapping[str, Any]:
        if by_torchrun:
            from app.implementations.training.rendezvous import share_job

            share_job(placement, raw)
        elif placement.processes > cores():
            raise Invalid(f"processes: this host has {cores()} cores, and each of {placement.processes} wants one")
        mine = {**raw, "threads": share_of_threads(raw["threads"], placement)}  # before ranks inherit what it sets
        ranks.start(end)
        return build_runner(raw["runner"]).carry_out(mine, placement, report)

    outcome, written = _run(work, report, ranks.lost)
    ranks.close()
    try:
        write(written)
    except OSError as error:
        if not is_disk_full(error):
            raise
        outcome = TrainerExit.DISK_FULL
    if chosen.rank:
        sys.stdout.flush()
        os._exit(outcome)  # what libraries do when the interpreter ends is no reason to fail
    return outcome


def follow() -> TrainerExit:
    """Take part in the job of rank 0, where torchrun has started this process: perhaps on another host.

    It has no worker: torchrun ends it when another ends, and a lost rank 0 breaks its connections.
    """
    from app.implementations.training.rendezvous import receive_job

    placement = torchrun_placement(os.environ)
    if placement is None:
        raise RuntimeError("torchrun has set no RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT")
    stop = threading.Event()
    report = Quiet(stop)

    def work() -> Mapping[str, Any]:
        raw = receive_job(placement)
        mine = {**raw, "threads": share_of_threads(raw["threads"], placement)}
        return build_runner(raw["runner"]).carry_out(mine, placement, report)

    outcome, _ = _run(work, report, lambda: None)
    return outcome


class Quiet(Reporter):
    """Of every rank but the first."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def message(self, text: str, level: str = "info") -> None:
        logging.getLogger(__name__).info("%s", text)

    def metrics(self, step: int, total_steps: int, figures: Mapping[str, float | None]) -> None:
        pass

    def should_stop(self) -> bool:
        return self._stop.is_set()


class EventWriter(Reporter):
    """Appends to events.ndjson, a line an event, and rings.

    What finds no room on the disk waits for the next event: it is no reason to end a run.
    """

    def __init__(self, path: Path, ring: int, stop: threading.Event) -> None:
        self._path = path
        self._file: io.FileIO | None = None
        self._unwritten = b""
        self._ring = ring
        os.set_blocking(ring, False)
        self._stop = stop
        self._lock = threading.Lock()
        self._seq = 0

    def message(self, text: str, level: str = "info") -> None:
        self._write("message", level, text, {})

    def metrics(self, step: int, total_steps: int, figures: Mapping[str, float | None]) -> None:
        known = {key: value if value is None or math.isfinite(value) else None for key, value in figures.items()}
        data = {"step": step, "total_steps": total_steps, **known}
        self._write("metrics", "info", f"step {step} of {total_steps}", data)

    def should_stop(self) -> bool:
        return self._stop.is_set()

    def _write(self, kind: str, level: str, message: str, data: Mapping[str, Any]) -> None:
        with self._lock:
            self._seq += 1
            line = {
                "seq": self._seq,
                "type": kind,
                "level": level,
                "message": message,
                "created_at": datetime.now(UTC).isoformat(),
                "data": data,
            }
            self._unwritten += json.dumps(line, ensure_ascii=False).encode() + b"\n"
            try:
                if self._file is None:
                    self._file = self._path.open("ab", buffering=0)
                while self._unwritten:
                    self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
            except OSError as error:
                if not is_disk_full(error):
                    raise
            # A full pipe has rung already; one that is closed has nobody to wake.
            with suppress(BlockingIOError, BrokenPipeError):
                os.write(self._ring, b"!")


def _run(
    work: Callable[[], Mapping[str, Any]], report: Reporter, lost: Callable[[], Lost | None]
) -> tuple[TrainerExit, Mapping[str, Any] | None]:
    """The exit status, and what result.json says. ``lost`` may know of a rank whose end explains an error."""
    try:
        return TrainerExit.SUCCEEDED, {"result": work()}
    except TrainingStopped:
        return TrainerExit.STOPPED, None
    except Exception as error:  # noqa: BLE001 - the worker learns of every failure through the result
        if not isinstance(error, AppError):
            print_traceback()
            if cause := lost():
                report.message(cause.written["message"], "error")
                return cause.status, cause.written
        failure = _failure(error)
        report.message(failure["message"], "error")
        return TrainerExit.FAILED, failure


def _failure(error: Exception) -> dict[str, Any]:
    if isinstance(error, AppError):
        faults = [asdict(fault) for fault in error.faults]
        return {"code": error.code, "message": error.message, "faults": faults}
    if is_out_of_memory(error):
        failure: dict[str, Any] = {"code": "out_of_memory", "message": "out of memory", "faults": []}
        with suppress(MemoryError, OSError):  # there is too little even to say how little
            failure["memory"] = asdict(shortage(error))
        return failure
    if is_disk_full(error):
        return {"code": "disk_full", "message": f"the disk is full: {RUN_FOLDER}", "faults": []}
    message = f"the trainer failed ({type(error).__name__}); see the run's logs.txt"
    return {"code": "trainer_failed", "message": message, "faults": []}


if __name__ == "__main__":
    sys.exit(main())
