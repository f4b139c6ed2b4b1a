"""Memory that runs out under a trainer, and trainers that somebody kills: one is final, the other tried again."""

import json
import os
import re
import resource
import shutil
import signal
from typing import Any

import pytest

from app.core.entities.jobs import FineTuningJob, JobState
from app.core.entities.models import BaseModelSpec
from app.registries import BASE_MODEL_SOURCES
from tests.integration.faults.conftest import attempts_of, trainers_of
from tests.running_service import BASE, MakeService, Service, wait_until

MEGABYTE = 2**20
ROWS = 700
TRAINING_SECONDS = 300.0


def test_a_trainer_that_may_have_no_more_is_told_by_how_much(make_service: MakeService) -> None:
    service = make_service()
    job = starved(service, 2000 * MEGABYTE, "double-eats", batch_size=8)
    assert attempts_of(service, job.id) == ["start"]
    wanted, had, missing = figures(job)
    assert had < 2000 * MEGABYTE
    assert 0 < missing <= 2**26  # what the double takes at a time
    assert wanted == pytest.approx(had + missing, abs=1e8)  # as it says, in tenths of a gigabyte


def test_a_batch_too_large_is_told_which_would_do(make_service: MakeService) -> None:
    service = make_service(trainer="torch", lease_seconds=60.0, cpu_threads=1)
    folder = service.settings.models_dir / "base" / BASE
    shutil.rmtree(folder)
    folder.mkdir()
    BASE_MODEL_SOURCES.load("random")(BaseModelSpec(BASE, "random", "llama"), folder)
    row = {"instruction": "Count.", "output": "one two three four five " * 40}
    rows = [{**row, "input": f"from {number}"} for number in range(ROWS)]
    (service.settings.data_dir / "raw" / "rows.json").write_text(json.dumps(rows))
    # About 4 GB, which hosts have: then nothing is rehearsed, and it is the run that finds out.
    options = {"batch_size": 512, "max_length": 512, "precision": "fp32", "warmup_steps": 0}
    job = starved(service, 2500 * MEGABYTE, "too-large", seconds=TRAINING_SECONDS, **options)
    assert figures(job)[2] > 0
    assert job.error is not None
    assert re.search(r"it would take about [\d.]+ [GM]B with .*batch_size: \d+", job.error.message)


def test_a_trainer_that_is_killed_again_and_again_is_poisoned(make_service: MakeService) -> None:
    """Nobody says that it was for want of memory; a host without a counter of that does not."""
    service = make_service(max_attempts=2)
    worker = service.worker()
    job_id = service.submit("double-hangs")
    for attempt in (1, 2):
        wait_until(lambda attempt=attempt: len(attempts_of(service, job_id)) == attempt, service.log)
        (trainer,) = trainers_of(service)
        os.kill(trainer.pid, signal.SIGKILL)
    job = service.wait_for(job_id)
    assert job.error is not None
    assert (job.state, job.error.code, job.attempts, job.lost) == (JobState.FAILED, "poisoned", 2, 2)
    assert "lost in each of 2 attempts" in job.error.message
    assert "by SIGKILL" in job.error.message
    assert worker.poll() is None


def test_what_a_poisoned_job_said_last_is_kept(make_service: MakeService) -> None:
    service = make_service(max_attempts=2)
    service.worker()
    job = service.wait_for(service.submit("double-crashes"))
    assert job.error is not None
    assert job.error.code == "poisoned"
    assert "exit status 70" in job.error.message
    printed = service.start("-m", "flask", "--app", "run", "jobs", "logs", job.id)
    assert printed.wait(60) == 0
    words = "the double's last words"
    # Of each attempt: in the worker's log, and in what the command prints (which is here the same file).
    assert len(re.findall(rf"its log ends: .*{words}", service.whole_log())) == 2
    assert len(re.findall(rf"^{words}$", service.whole_log(), re.MULTILINE)) >= 2


def starved(service: Service, limit: int, name: str, seconds: float = 60.0, **config: Any) -> FineTuningJob:
    """The end of a job of a worker whose processes may have ``limit`` bytes each."""
    worker = service.worker()
    wait_until(lambda: " ready." in service.whole_log(), service.log)
    resource.prlimit(worker.pid, resource.RLIMIT_DATA, (limit, limit))
    job = service.wait_for(service.submit(name, **config), seconds=seconds)
    assert job.error is not None, service.log()
    assert (job.state, job.error.code) == (JobState.FAILED, "out_of_memory"), job.error
    assert (job.attempts, job.lost) == (1, 0)
    assert worker.poll() is None
    return job


def figures(job: FineTuningJob) -> tuple[float, float, float]:
    """Bytes: what the message says that the trainer wanted, could have, and lacked."""
    assert job.error is not None
    size = r"([\d.]+) ([GM])B"
    found = re.search(rf"wanted {size} and could have {size}: {size} too few", job.error.message)
    assert found is not None, job.error.message
    sizes = [float(found[place]) * (1e9 if found[place + 1] == "G" else 1e6) for place in (1, 3, 5)]
    return sizes[0], sizes[1], sizes[2]
