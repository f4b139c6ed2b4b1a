"""A kind that a test adds gets what every kind has: queue, events, control, retries, limits, webhooks."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import Engine

from app.bootstrap import Overrides, Settings, build_services
from app.core.entities.jobs import FINAL_STATES, FineTuningJob, JobState, Step
from app.core.errors import Conflict, Invalid, TooMany
from app.core.services import Services
from tests.databases import copy_database
from tests.integration.jobs.shouting import ShoutKind
from tests.running_service import Developer, wait_until

LONG = 2000  # steps: a hundred seconds, which no test waits for


@pytest.fixture
def kind(tmp_path: Path) -> ShoutKind:
    return ShoutKind(tmp_path / "shouts")


@pytest.fixture
def engine(database_template: Path, tmp_path: Path) -> Iterator[Engine]:
    engine = copy_database(database_template, tmp_path / "app.db")
    yield engine
    engine.dispose()


@pytest.fixture
def services(settings: Settings, engine: Engine, kind: ShoutKind) -> Services:
    changed = settings.model_copy(update={"poll_seconds": 0.05, "lease_seconds": 2.0, "spare_trainers": False})
    return build_services(changed, engine, overrides=Overrides(kinds=[kind]))


@pytest.fixture
def in_background() -> Iterator[Callable[[Callable[[], object]], threading.Thread]]:
    threads: list[threading.Thread] = []

    def run(work: Callable[[], object]) -> threading.Thread:
        threads.append(threading.Thread(target=work, daemon=True))
        threads[-1].start()
        return threads[-1]

    yield run
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def job_of(services: Services, job_id: str) -> FineTuningJob:
    return services.job_records.get(Developer, job_id)


def running(services: Services, job_id: str) -> bool:
    return bool(job_of(services, job_id).progress.step)


def child_of(kind: ShoutKind, job_id: str) -> psutil.Process:
    """The child process that works for the job."""
    folder = str(kind.folder / job_id)
    return next(one for one in psutil.process_iter(["cmdline"]) if folder in " ".join(one.info["cmdline"] or []))


def test_it_runs_and_its_result_is_taken_up_once(services: Services, kind: ShoutKind) -> None:
    job = services.jobs.submit(Developer, "shout", {"word": "fire", "times": 3})
    assert (job.id.split("-")[0], job.state, job.name) == ("shout", JobState.QUEUED, "fire")
    assert services.execution.run_next("worker")
    done = job_of(services, job.id)
    assert (done.state, done.result, done.made) == (JobState.SUCCEEDED, {"shouted": "FIRE", "file": "fire"}, [])
    assert (done.progress.step, done.progress.total_steps) == (3, 3)
    said = services.job_records.events(Developer, job.id)
    assert [event.data["step"] for event in said if event.type == "metrics"] == [1, 2, 3]
    assert kind.taken_up == kind.ended == [(job.id, 1)]
    assert services.job_records.list(Developer, kind="shout").jobs == [done]
    assert services.job_records.list(Developer, kind="train").jobs == []


def test_a_bad_request_names_its_faults_and_saves_nothing(services: Services) -> None:
    with pytest.raises(Invalid) as error:
        services.jobs.submit(Developer, "shout", {})
    assert [(fault.where, fault.code) for fault in error.value.faults] == [("word", "missing")]
    with pytest.raises(Invalid, match="there is no kind 'whisper' of job; there are: train, estimate"):
        services.jobs.submit(Developer, "whisper", {})
    assert services.job_records.list(Developer).jobs == []


def test_what_it_says_of_its_end_is_the_jobs(services: Services, kind: ShoutKind) -> None:
    job = services.jobs.submit(Developer, "shout", {"word": "bad"})
    services.execution.run_next("worker")
    failed = job_of(services, job.id)
    assert failed.error is not None
    assert (failed.state, failed.error.code) == (JobState.FAILED, "bad_word")
    again = services.jobs.retry(Developer, job.id)
    assert (again.retry_of, again.config, again.kind) == (job.id, job.config, "shout")
    assert kind.taken_up == []


def test_it_is_cancelled_while_it_runs(
    services: Services, kind: ShoutKind, in_background: Callable[..., threading.Thread]
) -> None:
    job = services.jobs.submit(Developer, "shout", {"word": "fire", "times": LONG})
    worker = in_background(lambda: services.execution.run_next("worker"))
    wait_until(lambda: running(services, job.id))
    services.jobs.cancel(Developer, job.id)
    worker.join(30)
    assert job_of(services, job.id).state is JobState.CANCELLED
    assert kind.taken_up == []
    with pytest.raises(Conflict, match="cannot pause"):
        services.jobs.pause(Developer, job.id)


def test_a_child_that_is_killed_is_tried_again_and_ends_once(
    services: Services, kind: ShoutKind, in_background: Callable[..., threading.Thread]
) -> None:
    job = services.jobs.submit(Developer, "shout", {"word": "fire", "times": 40})
    worker = in_background(lambda: services.execution.run_next("worker"))
    wait_until(lambda: running(services, job.id))
    os.kill(child_of(kind, job.id).pid, signal.SIGKILL)
    worker.join(30)
    lost = job_of(services, job.id)
    assert (lost.state, lost.lost) == (JobState.QUEUED, 1)
    services.execution.run_next("worker")
    done = job_of(services, job.id)
    assert (done.state, done.attempts) == (JobState.SUCCEEDED, 2)
    assert kind.ended == [(job.id, 2)]


def test_limits_count_it_and_webhooks_tell_of_it(services: Services, engine: Engine) -> None:
    services.limits.change(Developer, Developer.project_id, {"queued": 1})
    services.webhooks.create(Developer, "https://example.com/", ["shout.job.succeeded"], enabled=True)
    services.jobs.submit(Developer, "shout", {"word": "fire"})
    with pytest.raises(TooMany):
        services.jobs.submit(Developer, "shout", {"word": "water"})
    services.execution.run_next("worker")
    [webhook] = services.webhooks.webhooks(Developer)
    [delivery] = services.webhooks.deliveries(Developer, webhook.id).deliveries
    assert delivery.type == "shout.job.succeeded"
    assert json.loads(delivery.body)["data"] == {"id": services.job_records.list(Developer).jobs[0].id}
    with pytest.raises(Invalid) as error:
        services.webhooks.create(Developer, "https://example.com/", ["whisper.job.failed"])
    assert "there is no event 'whisper.job.failed'" in error.value.faults[0].message


def test_jobs_wait_for_those_before_them(services: Services) -> None:
    first = services.jobs.submit(Developer, "shout", {"word": "one"})
    second = services.jobs.submit(Developer, "shout", {"word": "two"}, after=[first.id], priority=10)
    services.execution.run_next("worker")
    assert job_of(services, first.id).state is JobState.SUCCEEDED
    services.execution.run_next("worker")
    assert job_of(services, second.id).state is JobState.SUCCEEDED


def test_what_waits_for_a_job_that_ends_badly_is_cancelled(services: Services) -> None:
    steps = [
        Step("first", "shout", {"word": "bad"}),
        Step("second", "shout", {"word": "two"}, after=["first"]),
        Step("third", "shout", {"word": "three"}, after=["second"]),
    ]
    first, second, third = services.jobs.submit_chain(Developer, steps)
    services.execution.run_next("worker")
    states = [job_of(services, job.id).state for job in (first, second, third)]
    assert states == [JobState.FAILED, JobState.CANCELLED, JobState.CANCELLED]
    error = job_of(services, third.id).error
    assert error is not None
    assert (error.code, second.id in error.message) == ("dependency_failed", True)
    with pytest.raises(Conflict, match="has failed"):
        services.jobs.submit(Developer, "shout", {"word": "four"}, after=[first.id])
    assert services.execution.run_next("worker") is False


def test_a_chain_with_faults_starts_nothing(services: Services) -> None:
    steps = [
        Step("first", "shout", {}),
        Step("second", "whisper", {}),
        Step("third", "shout", {"word": "x"}, after=["nobody"]),
        Step("third", "shout", {"word": "$later"}),
    ]
    with pytest.raises(Invalid) as error:
        services.jobs.submit_chain(Developer, steps)
    assert [(fault.where, fault.code) for fault in error.value.faults] == [
        ("jobs.0.word", "missing"),
        ("jobs.1.kind", "unknown_kind"),
        ("jobs.2", "unknown_step"),
        ("jobs.3", "unknown_step"),
    ]
    assert services.job_records.list(Developer).jobs == []


def test_a_worker_that_does_not_know_the_kind_leaves_it_to_others(
    settings: Settings, services: Services, engine: Engine
) -> None:
    job = services.jobs.submit(Developer, "shout", {"word": "fire"})
    older = build_services(settings, engine)
    assert older.execution.run_next("worker") is False
    assert services.execution.run_next("worker")
    assert job_of(services, job.id).state is JobState.SUCCEEDED


def test_every_state_that_ends_is_final(services: Services) -> None:
    job = services.jobs.submit(Developer, "shout", {"word": "fire"})
    services.jobs.cancel(Developer, job.id)
    assert job_of(services, job.id).state in FINAL_STATES
    assert services.jobs.cancel(Developer, job.id).state is JobState.CANCELLED
    with pytest.raises(Conflict):
        services.jobs.resume(Developer, job.id)
