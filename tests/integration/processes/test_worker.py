"""Jobs through real Celery workers, over the filesystem broker and over Redis."""

import os
import signal

import pytest

from app.core.entities.jobs import JobState
from tests.running_service import Developer, MakeService, wait_until


@pytest.mark.parametrize("broker", ["filesystem", "redis"])
def test_a_job_runs_to_its_end(make_service: MakeService, request: pytest.FixtureRequest, broker: str) -> None:
    redis = {"redis_url": request.getfixturevalue("redis_url")} if broker == "redis" else {}
    service = make_service(poll_seconds=20.0, lease_seconds=60.0, **redis)  # so that it is the doorbell that wakes
    service.worker()
    service.wait_for(service.submit("double-ok"))  # whatever the worker's first look finds
    job = service.wait_for(service.submit("double-ok", model_name="helper", num_epochs=3))
    assert (job.state, job.error, job.attempts) == (JobState.SUCCEEDED, None, 1)
    assert job.finished_at is not None
    assert (job.finished_at - job.created_at).total_seconds() < 15  # under the poll interval
    assert (job.progress.step, job.progress.total_steps) == (3, 3)
    assert [word for word, _ in service.marks(job.id)] == ["start", "end"]
    versions = service.services.models.versions(Developer, "helper")
    assert [(version.id, version.number) for version in versions] == [(job.model_version_id, 1)]
    checked, *of_trainer = service.services.job_records.events(Developer, job.id)
    assert checked.data["token_ledger"]["all"]["trained"] > 0
    assert len(of_trainer) == 4


def test_the_workers_log_is_by_the_projects_settings(make_service: MakeService) -> None:
    service = make_service()
    service.worker()
    job_id = service.submit("double-ok")
    service.wait_for(job_id)

    def ends() -> list[str]:
        return [line for line in service.whole_log().splitlines() if f"job {job_id}: the child of" in line]

    wait_until(ends, service.log)
    assert len(ends()) == 1
    assert ends()[0].endswith(
        f" INFO app.core.services.jobs.attempt [-] job {job_id}: the child of claim 2 succeeded"
    )
    assert "celery.app.trace" not in service.whole_log()  # nor is each doorbell told


def test_a_worker_killed_with_its_job_is_replaced_once(make_service: MakeService) -> None:
    service = make_service()
    first = service.worker()
    job_id = service.submit("double-slow", num_epochs=30)
    service.wait_for(job_id, JobState.RUNNING)
    wait_until(lambda: service.marks(job_id), service.log)
    service.worker()
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    job = service.wait_for(job_id)
    assert (job.state, job.attempts) == (JobState.SUCCEEDED, 2)
    words = [word for word, _ in service.marks(job_id)]
    assert words == ["start", "start", "end"]
    starts = [at for word, at in service.marks(job_id) if word == "start"]
    assert starts[1] - starts[0] > service.settings.lease_seconds


def test_a_drained_worker_gives_its_job_back(make_service: MakeService) -> None:
    service = make_service()
    worker = service.worker()
    job_id = service.submit("double-slow", num_epochs=1000)
    service.wait_for(job_id, JobState.RUNNING)
    wait_until(lambda: service.marks(job_id), service.log)
    worker.terminate()
    assert worker.wait(8) == 0
    assert service.job(job_id).state is JobState.QUEUED
    assert [word for word, _ in service.marks(job_id)] == ["start", "end"]
