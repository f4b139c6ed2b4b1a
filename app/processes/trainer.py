"""One training attempt in a process of its own: docs/trainer-protocol.md.

``python -m app.processes.trainer JOB.json --ring FD --control FD``, started by a worker.
"""

import argparse
import json
import logging
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.bootstrap import build_runner
from app.core.entities.trainer import TrainerExit
from app.core.entities.training_config import TrainingConfig
from app.core.errors import AppError
from app.core.interfaces.components import Reporter, TrainerJob, TrainingRunner, TrainingStopped
from app.processes.lease_guard import LeaseGuard
from app.utils.files import write_whole

OUT_OF_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")  # torch's


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m app.processes.trainer")
    parser.add_argument("job", type=Path, help="the job file")
    parser.add_argument("--ring", type=int, required=True, help="descriptor to write a byte to at each event")
    parser.add_argument("--control", type=int, required=True, help="descriptor of the worker's orders")
    chosen = parser.parse_args(arguments)
    for descriptor in (chosen.ring, chosen.control):
        os.set_inheritable(descriptor, False)

    raw = json.loads(chosen.job.read_text("utf-8"))
    stop = threading.Event()
    LeaseGuard(chosen.control, raw["deadline"], stop)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")

    folder = chosen.job.parent
    report = EventWriter(folder / "events.ndjson", chosen.ring, stop)
    outcome, written = _run(_job(raw), report)
    if written is not None:
        write_whole(folder / "result.json", json.dumps(written, ensure_ascii=False))
    return outcome


class EventWriter(Reporter):
    """Appends to events.ndjson, a line an event, and rings."""

    def __init__(self, path: Path, ring: int, stop: threading.Event) -> None:
        self._file = path.open("ab", buffering=0)
        self._ring = ring
        os.set_blocking(ring, False)
        self._stop = stop
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
        self._seq += 1
        line = {
            "seq": self._seq,
            "type": kind,
            "level": level,
            "message": message,
            "created_at": datetime.now(UTC).isoformat(),
            "data": data,
        }
        self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        # A full pipe has rung already; one that is closed has nobody to wake.
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._ring, b"!")


def _job(raw: Mapping[str, Any]) -> TrainerJob:
    return TrainerJob(
        job_id=raw["job_id"],
        attempt=raw["attempt"],
        runner=raw["runner"],
        config=TrainingConfig.model_validate(raw["config"]),
        base_model_folder=Path(raw["base_model_folder"]),
        dataset_folder=Path(raw["dataset_folder"]),
        run_folder=Path(raw["run_folder"]),
        threads=raw["threads"],
        start_from=Path(raw["start_from"]) if raw.get("start_from") else None,
    )


def _run(job: TrainerJob, report: Reporter) -> tuple[TrainerExit, Mapping[str, Any] | None]:
    """The exit status, and what result.json says."""
    try:
        runner: TrainingRunner = build_runner(job.runner)
        return TrainerExit.SUCCEEDED, {"result": runner.run(job, report)}
    except TrainingStopped:
        return TrainerExit.STOPPED, None
    except Exception as error:  # noqa: BLE001 - the worker learns of every failure through the result
        if not isinstance(error, AppError):
            traceback.print_exc()  # to logs.txt; the client sees no exception's text
        failure = _failure(error)
        report.message(failure["message"], "error")
        return TrainerExit.FAILED, failure


def _failure(error: Exception) -> dict[str, Any]:
    if isinstance(error, AppError):
        faults = [asdict(fault) for fault in error.faults]
        return {"code": error.code, "message": error.message, "faults": faults}
    if _is_out_of_memory(error):
        advice = "out of memory: lower batch_size or max_length, or set gradient_checkpointing"
        return {"code": "out_of_memory", "message": advice, "faults": []}
    message = f"the trainer failed ({type(error).__name__}); see the run's logs.txt"
    return {"code": "trainer_failed", "message": message, "faults": []}


def _is_out_of_memory(error: Exception) -> bool:
    """By name and words: torch's own classes are not imported here."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in OUT_OF_MEMORY_WORDS)


if __name__ == "__main__":
    sys.exit(main())
