"""A trainer without torch: the double of the protocol, for tests of everything around it.

The experiment's name says what it does:

``double-fails``    raises ``nan_loss`` after the first step
``double-invalid``  raises ``invalid_data`` with two faults
``double-raises``   an exception nobody foresaw
``double-memory``   says that it ran out of memory
``double-eats``     does run out of it, if it may not have 4 GB
``double-crashes``  ends without a word after the first step; ``double-crashes-1``: rank 1 does, the others hang
``double-slow``     ten steps a second, until done or asked to stop
``double-hangs``    never ends and does not listen
``double-busy``     never ends, inside C code that holds the interpreter's lock
``double-forks``    hangs, with a child in a session of its own
``double-huge``     is forecast to need more memory than any host has

A name that only begins so (``double-slow-3``) does the same; any other succeeds at once. A step is an epoch.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from app.core.entities.forecasts import Forecast
from app.core.errors import AppError, Fault, Invalid
from app.core.interfaces.components import Reporter, TrainerJob, TrainingRunner, TrainingStopped
from app.utils.clock import boottime
from app.utils.files import write_whole
from app.utils.folders import locked

SLOW_STEP_SECONDS = 0.1
MOUTHFUL = 2**26  # bytes


class ScriptedRunner(TrainingRunner):
    """Leaves what a real run leaves. ``marks.txt`` beside the run folder counts attempts outside the database:

    ``start|end|overlap JOB ATTEMPT BOOTTIME PID`` a line. ``overlap``: another attempt at the job is at work.
    """

    def run(self, job: TrainerJob, report: Reporter) -> Mapping[str, Any]:
        """See the interface."""
        if job.placement.rank:
            return self._train(job, report)
        try:
            # The system frees the lock of a process that has ended, however it did.
            with locked(job.run_folder.parent / job.job_id, wait=False):
                return self._train(job, report)
        except BlockingIOError:
            _mark(job, "overlap")
            raise

    def _train(self, job: TrainerJob, report: Reporter) -> Mapping[str, Any]:
        _mark(job, "start")
        report.message("the double begins")
        steps = job.config.num_epochs
        for step in range(1, steps + 1):
            if report.should_stop():
                _mark(job, "end")
                raise TrainingStopped
            loss = 2.0 / step
            figures = {"loss": loss, "learning_rate": job.config.learning_rate, "tokens_per_second": 100.0}
            report.metrics(step, steps, {**figures, "eta_seconds": 0.0})
            _act(job.config.experiment_name, job.placement.rank)
        metrics = {"train_loss": 2.0 / steps, "eval_loss": 2.0 / steps, "input_tokens": 10 * steps}
        if job.placement.rank == 0:
            _leave(job, metrics)
        _mark(job, "end")
        return {"metrics": metrics, "template_hash": sha256(b"double").hexdigest()}


class ScriptedForecast(TrainingRunner):
    """Says at once what a run would take; of the names above, those that fail or hang do so here too."""

    def run(self, job: TrainerJob, report: Reporter) -> Mapping[str, Any]:
        """See the interface."""
        _act(job.config.experiment_name, job.placement.rank)
        steps, huge = job.config.num_epochs, job.config.experiment_name.startswith("double-huge")
        found = Forecast(
            peak_memory_bytes=10**15 if huge else 10**6,
            seconds=0.1 * steps,
            steps=steps,
            input_tokens=10 * steps,
            trained_tokens=5 * steps,
            disk_bytes=10**6,
            resting_bytes=10**5,
            token_bytes=1e15 / 512 if huge else 1000.0,
            largest_batch_tokens=512,
        )
        return {"forecast": asdict(found)}


def _act(name: str, rank: int) -> None:
    forever = threading.Event()
    if name.startswith("double-crashes-") and name != f"double-crashes-{rank}":
        forever.wait()
    match name.removeprefix("double-").partition("-")[0]:
        case "fails":
            raise AppError("the loss is not a number at step 1", code="nan_loss")
        case "invalid":
            faults = [Fault(f"row {row}", "no_answer", "has no answer") for row in (1, 2)]
            raise Invalid("the data has faults", code="invalid_data", faults=faults)
        case "raises":
            raise ValueError("a secret of the host")
        case "memory":
            raise MemoryError
        case "eats":
            _eat()
        case "crashes":
            sys.stderr.write("the double's last words\n")
            os._exit(70)
        case "slow":
            forever.wait(SLOW_STEP_SECONDS)
        case "hangs":
            forever.wait()
        case "busy":
            sum(range(10**15))
        case "forks":
            child = [sys.executable, "-c", "import threading; threading.Event().wait()"]
            subprocess.Popen(child, start_new_session=True).wait()


def _eat() -> None:
    import numpy  # whose error says, like torch's, how much it asked for

    eaten: list[Any] = []
    while len(eaten) < 64:
        eaten.append(numpy.ones(MOUTHFUL, numpy.uint8))


def _leave(job: TrainerJob, metrics: Mapping[str, Any]) -> None:
    artifacts = job.run_folder / "artifacts"
    artifacts.mkdir(exist_ok=True)
    write_whole(artifacts / "adapter_config.json", json.dumps({"peft_type": "LORA", "r": job.config.lora.r}))
    write_whole(job.run_folder / "metrics.json", json.dumps(metrics))


def _mark(job: TrainerJob, word: str) -> None:
    line = f"{word} {job.job_id} {job.attempt} {boottime()!r} {os.getpid()}\n"
    descriptor = os.open(_marks(job), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _marks(job: TrainerJob) -> Path:
    return job.run_folder.parent / "marks.txt"
