"""Jobs as those who ask for them see them, and a wait for one."""

import threading
import time

import pytest

from app.core.entities.identity import Principal, Role
from app.core.entities.jobs import JobState
from app.core.errors import Invalid, NotFound

CLIENT = Principal("user-1", "alice", "default", Role.OPERATOR)
STRANGER = Principal("user-2", "bob", "other", Role.ADMIN)
SOUND = {"dataset_path": "data/raw/sound.json"}


@pytest.fixture
def records(services):
    return services.job_records


@pytest.fixture
def job(services):
    return services.jobs.submit(CLIENT, "train", SOUND)


def test_a_wait_ends_with_its_job(services, records, job):
    waiting = threading.Event()
    seen = []

    def wait():
        waiting.set()
        seen.append(records.wait(CLIENT, job.id, 30))

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(5)
    services.jobs.cancel(CLIENT, job.id)
    thread.join(10)
    assert not thread.is_alive()
    assert seen[0].state is JobState.CANCELLED


def test_a_wait_has_its_end(records, job):
    for seconds in (0, -1, 0.2):
        began = time.monotonic()
        assert records.wait(CLIENT, job.id, seconds).state is JobState.VALIDATING_FILES
        assert time.monotonic() - began < 5


def test_nobody_waits_for_another_projects_job(records, job):
    with pytest.raises(NotFound):
        records.wait(STRANGER, job.id, 30)


def test_a_job_is_found_by_its_kind(services, records, job):
    estimate = services.jobs.submit(CLIENT, "estimate", SOUND)
    assert records.get(CLIENT, job.id, "train") == job
    with pytest.raises(NotFound):
        records.get(CLIENT, job.id, "estimate")
    with pytest.raises(NotFound):
        services.jobs.cancel(CLIENT, estimate.id, "train")
    assert [one.id for one in records.list(CLIENT).jobs] == [estimate.id, job.id]
    assert [one.id for one in records.list(CLIENT, kind="train").jobs] == [job.id]
    assert records.list(CLIENT, kind="process").jobs == []


@pytest.mark.parametrize("after", ["", "../x", "ftjob-1", "ftjob-" + "0" * 24])
def test_a_page_after_no_job_is_refused(records, job, after):
    with pytest.raises(Invalid):
        records.list(CLIENT, after=after)
