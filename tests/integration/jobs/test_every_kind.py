"""The kinds that the service has, with real workers and child processes: to their end, cancelled, and killed."""

import io
import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.core.entities.jobs import FINAL_STATES, FineTuningJob, JobState, Step
from app.core.entities.models import BaseModelSpec
from app.registries import BASE_MODEL_SOURCES
from tests.running_service import BASE, Developer, MakeService, Service, wait_until

SECONDS = 300.0  # far beyond what it takes: child processes import libraries on a machine that may be busy
ROWS = 2500  # which the pipeline and the inspection look through for some seconds


def rows(count: int) -> bytes:
    """Conversations that are hard to tell apart, with the keys by which their answers are scored."""
    lines = []
    for number in range(count):
        asked = {"role": "user", "content": f"How much is {number} and {number} and a little more than {number}?"}
        said = {"role": "assistant", "content": f"It is {2 * number}."}
        lines.append(json.dumps({"messages": [asked, said], "keys": [[str(2 * number)]]}))
    return "\n".join(lines).encode()


def upload(service: Service, count: int) -> str:
    stream = io.BytesIO(rows(count))
    versions = service.services.dataset_versions
    return versions.upload(Developer, stream, "rows.jsonl", name=f"rows-{count}").dataset_id


@pytest.fixture(params=["sqlite and files", "postgres and redis"])
def stack(request: pytest.FixtureRequest) -> Mapping[str, Any]:
    if request.param == "sqlite and files":
        return {}
    database = request.getfixturevalue("postgres_database")
    return {"database_url": database, "redis_url": request.getfixturevalue("redis_url")}


@pytest.fixture
def service(make_service: MakeService, stack: Mapping[str, Any]) -> Service:
    """With a base model that answers, at random."""
    made = make_service(cpu_threads=2, **stack)
    folder: Path = made.settings.models_dir / "base" / BASE
    for file in folder.iterdir():
        file.unlink()
    BASE_MODEL_SOURCES.load("random")(BaseModelSpec(BASE, "random", "llama"), folder)
    return made


def requests_of(service: Service) -> Mapping[str, Callable[[], FineTuningJob]]:
    """What submits a job of each kind whose child process is at work for some seconds at least."""
    large = upload(service, ROWS)
    jobs = service.services.jobs
    near = {"steps": ["clean", "split"], "splitting": {"near_duplicates": "keep_together"}}
    overrides = {"base_model": BASE, "dataset_path": "data/raw/rows.json", "num_epochs": 100}

    def submit(kind: str, request: Mapping[str, Any]) -> Callable[[], FineTuningJob]:
        return lambda: jobs.submit(Developer, kind, request)

    return {
        "train": submit("train", {**overrides, "experiment_name": "double-slow"}),
        "estimate": submit("estimate", {**overrides, "experiment_name": "double-hangs"}),
        "process": submit("process", {"dataset_id": large, "config": near}),
        "inspect": submit("inspect", {"dataset_id": large}),
        "evaluate": submit("evaluate", {"model": BASE, "dataset_id": large, "split": "train"}),
    }


def child_works(service: Service, job_id: str) -> bool:
    """Whether a child process of the job has started."""
    job = service.job(job_id)
    assert job.state not in FINAL_STATES, (job.state, job.error)
    return job.state is JobState.RUNNING and job.run_folder is not None and bool(children_of(service, job))


def folder_of(service: Service, job: FineTuningJob) -> Path:
    return service.settings.results_dir / (job.run_folder or "")


def children_of(service: Service, job: FineTuningJob) -> list[psutil.Process]:
    """Processes with the job's folder in their command."""
    folder = str(folder_of(service, job))
    return [one for one in psutil.process_iter(["cmdline"]) if folder in " ".join(one.info["cmdline"] or [])]


def test_each_kind_comes_to_its_end(service: Service) -> None:
    service.worker()
    small = upload(service, 60)
    jobs = service.services.jobs
    asked = {"base_model": BASE, "dataset_id": small, "num_epochs": 2}
    submitted = {
        "train": jobs.submit(Developer, "train", {**asked, "model_name": "made"}),
        "estimate": jobs.submit(Developer, "estimate", asked),
        "process": jobs.submit(Developer, "process", {"dataset_id": small}),
        "inspect": jobs.submit(Developer, "inspect", {"dataset_id": small, "base_model": BASE}),
        "evaluate": jobs.submit(Developer, "evaluate", {"model": BASE, "dataset_id": small}),
    }
    ended = {kind: service.wait_for(job.id, seconds=SECONDS) for kind, job in submitted.items()}
    assert {kind: job.state for kind, job in ended.items()} == dict.fromkeys(ended, JobState.SUCCEEDED), [
        job.error for job in ended.values()
    ]
    assert ended["train"].made == ["made:1"]
    assert ended["process"].made == [f"{small}:2"]
    assert ended["process"].result["rows"] == 60
    assert ended["estimate"].result["fits"] is True
    assert ended["inspect"].result["report"]["total_samples"] == 60
    score = ended["evaluate"].result
    assert (score["total"], len(score["answers"]), score["split"]) == (6, 6, "test")
    made = service.services.dataset_versions.version(Developer, f"{small}:2")
    assert (made.parent, made.rows, made.pipeline["steps"]) == (1, 60, ["clean", "split"])
    for kind in ("estimate", "process", "inspect", "evaluate"):
        assert not folder_of(service, ended[kind]).exists() or ended[kind].run_folder is None, kind


def test_a_chain_hands_on_what_it_makes(service: Service) -> None:
    service.worker()
    small = upload(service, 60)
    tuning = {"base_model": BASE, "dataset_id": "$clean", "model_name": "helper", "num_epochs": 1}
    steps = [
        Step("clean", "process", {"dataset_id": small}),
        Step("tune", "train", tuning),
        Step("look", "inspect", {"dataset_id": "$clean"}, after=["tune"]),
    ]
    chain = service.services.jobs.submit_chain(Developer, steps)
    ended = [service.wait_for(job.id, seconds=SECONDS) for job in chain]
    assert [job.state for job in ended] == [JobState.SUCCEEDED] * 3, [job.error for job in ended]
    assert [list(job.made) for job in ended] == [[f"{small}:2"], ["helper:1"], []]
    assert (ended[1].dataset_id, ended[1].dataset_number) == (small, 2)
    assert ended[1].config["dataset_id"] == ended[2].config["dataset_id"] == f"{small}:2"
    assert ended[2].started_at is not None
    assert ended[1].finished_at is not None
    assert ended[2].started_at >= ended[1].finished_at


def test_each_kind_is_cancelled_while_it_works(service: Service) -> None:
    service.worker()
    for kind, submit in requests_of(service).items():
        job = submit()
        wait_until(lambda job=job: child_works(service, job.id), service.log, SECONDS)
        service.services.jobs.cancel(Developer, job.id)
        ended = service.wait_for(job.id, seconds=SECONDS)
        assert (kind, ended.state) == (kind, JobState.CANCELLED)
        wait_until(lambda ended=ended: not children_of(service, ended), service.log, SECONDS)
    assert [one.newest.number for one in service.services.dataset_versions.list(Developer).datasets] == [1]


@pytest.mark.parametrize("kind", ["train", "estimate", "process", "inspect", "evaluate"])
def test_a_worker_killed_in_the_middle_loses_and_doubles_nothing(
    make_service: MakeService, kind: str, request: pytest.FixtureRequest
) -> None:
    made = make_service(cpu_threads=2)
    folder: Path = made.settings.models_dir / "base" / BASE
    for file in folder.iterdir():
        file.unlink()
    BASE_MODEL_SOURCES.load("random")(BaseModelSpec(BASE, "random", "llama"), folder)
    asked = {"base_model": BASE, "dataset_path": "data/raw/rows.json", "num_epochs": 20}
    small = upload(made, 200)
    requests: Mapping[str, Mapping[str, Any]] = {
        "train": {**asked, "experiment_name": "double-slow"},
        "estimate": {**asked, "experiment_name": "double-slow"},
        "process": {"dataset_id": small},
        "inspect": {"dataset_id": small},
        "evaluate": {"model": BASE, "dataset_id": small, "split": "train"},
    }
    worker = made.worker()
    job = made.services.jobs.submit(Developer, kind, requests[kind])
    wait_until(lambda: child_works(made, job.id), made.log, SECONDS)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    made.worker()
    ended = made.wait_for(job.id, seconds=SECONDS)
    assert ended.state is JobState.SUCCEEDED, (ended.error, made.log())
    assert (ended.attempts, ended.lost) == (2, 1)
    versions = made.services.dataset_versions.versions(Developer, small)
    assert len(versions) == (2 if kind == "process" else 1)
    published = made.services.models.models(Developer)
    assert len(published) == (1 if kind == "train" else 0)
