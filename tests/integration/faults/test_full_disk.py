"""No room on the disk, met by the worker before, by the trainer at work, and by the worker after it."""

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from app.core.entities.jobs import JobState
from app.core.errors import Unavailable
from tests.integration.faults.conftest import attempts_of, steps_of, wait_for_all
from tests.running_service import MakeService, Service, wait_until
from tests.small_disk import SmallTmpfs


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallTmpfs]:
    """Named before ``make_service``: what that has started is ended before the file system goes."""
    with SmallTmpfs(tmp_path / "small") as small:
        yield small


# config.yaml finds no room, job.json, or what the trainer leaves; a cut of the data; a version.
@pytest.mark.parametrize(
    ("place", "spare", "marks"),
    [
        ("RESULTS_DIR", 0, []),
        ("RESULTS_DIR", 4096, []),
        pytest.param("RESULTS_DIR", 8192, ["start"], marks=pytest.mark.slow),
        ("DATA_DIR", 0, []),
        ("MODELS_DIR", 0, ["start", "end"]),
    ],
)
def test_a_job_says_where_there_is_no_room(
    disk: SmallTmpfs, make_service: MakeService, place: str, spare: int, marks: list[str]
) -> None:
    service = make_service(worker_slots=2, **{place.lower(): disk.folder})
    worker = service.worker()
    other = service.submit("double-slow", num_epochs=40)
    wait_until(lambda: service.marks(other), service.log)
    disk.fill(spare)
    job_id = service.submit("double-ok", seed=7)  # another cut than that of the first
    check_full(service, job_id, place)
    assert attempts_of(service, job_id) == marks

    disk.clear()  # so that the other may end well: it has trained all the while
    assert service.wait_for(other).state is JobState.SUCCEEDED
    assert attempts_of(service, other) == ["start", "end"]
    assert service.wait_for(service.submit("double-ok", seed=8)).state is JobState.SUCCEEDED
    assert worker.poll() is None


@pytest.mark.parametrize("spare", [0, 8192])
def test_the_disk_fills_while_the_trainer_is_at_work(
    disk: SmallTmpfs, make_service: MakeService, spare: int
) -> None:
    """For what it leaves, and not even for a word of that."""
    service = make_service(results_dir=disk.folder)
    worker = service.worker()
    job_id = service.submit("double-slow", num_epochs=10)
    wait_until(lambda: service.marks(job_id), service.log)
    disk.fill(spare)
    check_full(service, job_id, "RESULTS_DIR")

    disk.clear()
    assert service.wait_for(service.submit("double-ok")).state is JobState.SUCCEEDED
    assert worker.poll() is None


def test_the_database_has_no_room(disk: SmallTmpfs, make_service: MakeService) -> None:
    """Nothing can be written down, not even that a job has failed: then it is like a database that is away."""
    service = make_service(instance_dir=disk.folder, lease_seconds=60.0)
    worker = service.worker()
    job_id = service.submit("double-slow", num_epochs=40)
    wait_until(lambda: len(steps_of(service, job_id)) > 2, service.log)
    disk.fill(0)
    with pytest.raises(Unavailable) as refused:
        submit_without_end(service)  # the files that the database has leave it a little room
    assert (refused.value.code, "make room" in refused.value.message) == ("disk_full", True)
    wait_until(lambda: attempts_of(service, job_id) == ["start", "end"], service.log)  # it trains on

    disk.clear()
    job = service.wait_for(job_id)
    assert (job.state, job.attempts) == (JobState.SUCCEEDED, 1)
    assert steps_of(service, job_id) == list(range(1, 41))
    wait_for_all(service, 60)
    assert worker.poll() is None


def submit_without_end(service: Service) -> NoReturn:
    while True:
        service.submit("double-ok")


def check_full(service: Service, job_id: str, place: str) -> None:
    """It failed at once, for good, and says what to do; nothing of it is published."""
    job = service.wait_for(job_id)
    assert job.error is not None
    assert (job.state, job.error.code) == (JobState.FAILED, "disk_full"), job.error
    assert job.error.message.startswith("the disk is full: ")
    assert f"make room in {place}" in job.error.message
    assert job.attempts <= 1
    assert job.lost == 0
    assert job.model_version_id is None
