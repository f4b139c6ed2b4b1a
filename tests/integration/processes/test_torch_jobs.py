"""Jobs that real trainers with torch train: interrupted in each of the ways there are, to the same bytes."""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app import create_app
from app.bootstrap import load_training_config
from app.core.entities.jobs import FineTuningJob, JobState
from app.core.entities.models import BaseModelSpec
from app.model.training_service import train
from app.registries import BASE_MODEL_SOURCES
from tests.integration.faults.conftest import trainers_of
from tests.running_service import BASE, Developer, MakeService, Service, wait_until

SECONDS = 300.0  # far beyond what it takes: trainers import torch on a machine that may be busy
STEPS = 80
CONFIG: dict[str, Any] = {
    "num_epochs": 20,  # of 8 rows
    "batch_size": 2,
    "learning_rate": 1e-2,
    "lora": {"r": 4, "lora_dropout": 0.1},
    "save_steps": 50,
    "device": "cpu",
    "model_name": "made",
}


@pytest.fixture
def service(make_service: MakeService) -> Service:
    made = make_service(trainer="torch", lease_seconds=30.0, drain_seconds=60.0, cpu_threads=1)
    folder: Path = made.settings.models_dir / "base" / BASE
    shutil.rmtree(folder)
    folder.mkdir()
    BASE_MODEL_SOURCES.load("random")(BaseModelSpec(BASE, "random", "llama"), folder)
    return made


def adapter(service: Service, job: FineTuningJob) -> bytes:
    assert job.model_version_id is not None, (job.error, service.log())
    version = service.services.models.version(job.model_version_id)
    return (
        service.settings.models_dir / "registry" / version.artifacts / "adapter_model.safetensors"
    ).read_bytes()


def steps(service: Service, job_id: str) -> list[int]:
    events = service.services.job_records.events(Developer, job_id, limit=1000)
    return [event.data["step"] for event in events if event.type == "metrics" and "loss" in event.data]


def end_of(service: Service, job_id: str) -> FineTuningJob:
    return service.wait_for(job_id, seconds=SECONDS)


def wait_for_step(service: Service, job_id: str, step: int) -> None:
    wait_until(lambda: (service.job(job_id).progress.step or 0) >= step, service.log, SECONDS)


def paused_and_resumed(service: Service, worker: Any, job_id: str) -> None:
    service.services.jobs.pause(Developer, job_id)
    paused = service.wait_for(job_id, JobState.PAUSED, seconds=SECONDS)
    assert 0 < (paused.progress.step or 0) < STEPS
    assert not trainers_of(service)
    worker.send_signal(signal.SIGTERM)
    worker.wait(60)
    service.worker()
    service.services.jobs.resume(Developer, job_id)


def drained(service: Service, worker: Any, job_id: str) -> None:
    worker.send_signal(signal.SIGTERM)
    worker.wait(60)
    assert service.job(job_id).state is JobState.QUEUED
    service.worker()


# What a pause leaves is taken up as what a drained worker leaves: once is enough for every day.
@pytest.mark.parametrize("interrupt", [pytest.param(paused_and_resumed, marks=pytest.mark.slow), drained])
def test_another_worker_goes_on_to_the_same_adapter(
    service: Service, interrupt: Callable[[Service, Any, str], None]
) -> None:
    worker = service.worker()
    alone = end_of(service, service.submit("alone", **CONFIG))

    job_id = service.submit("alone", **CONFIG)
    wait_for_step(service, job_id, 5)
    interrupt(service, worker, job_id)
    job = end_of(service, job_id)

    assert (job.state, job.attempts, job.lost) == (JobState.SUCCEEDED, 2, 0)
    assert adapter(service, job) == adapter(service, alone)
    assert steps(service, job_id) == steps(service, alone.id) == list(range(1, STEPS + 1))  # not one made twice
    figures = ("train_loss", "eval_loss", "trained_tokens")
    assert {name: job.result[name] for name in figures} == {name: alone.result[name] for name in figures}


def test_the_foreground_and_a_worker_train_the_same_adapter(service: Service) -> None:
    rows = service.settings.data_dir / "raw" / "rows.json"
    words = {**CONFIG, "num_epochs": 3, "base_model": BASE, "experiment_name": "twice"}
    config = load_training_config(service.settings.train_config_file, dataset_path=str(rows), **words)
    here = train(create_app(service.settings, inline=True), config)

    service.worker(WORKER_SLOTS="1")
    asked = {key: value for key, value in config.as_request().items() if key != "dataset_path"}
    there = end_of(service, service.submit(**{"name": "twice", **asked}))

    assert (here.state, there.state) == (JobState.SUCCEEDED, JobState.SUCCEEDED), there.error
    assert adapter(service, here) == adapter(service, there)

    def left(job: FineTuningJob) -> list[str]:
        folder = service.settings.results_dir / (job.run_folder or "")
        paths = (str(path.relative_to(folder)).replace(job.id, "JOB") for path in folder.rglob("*"))
        return sorted(
            path for path in paths if not path.startswith("tensorboard/")
        )  # the host's name and the time

    assert left(here) == left(there)
