"""The wall clock of a worker is set an hour forward and back, as by an administrator or an NTP client."""

from pathlib import Path

from app.core.entities.jobs import JobState
from tests.faketime import FakeTime
from tests.integration.faults.conftest import Stack, check_taken_up_once, steps_of
from tests.running_service import Developer, wait_until

HOUR = 3600
STEPS = 60
MODEL = "helper"


def test_a_wall_clock_that_is_set_changes_nothing(stack: Stack, tmp_path: Path) -> None:
    clock = FakeTime(tmp_path)
    service = stack.make(lease_seconds=60.0, poll_seconds=1.0)  # an hour is many leases
    # The second takes no job. It looks at leases more often than they are renewed: what it knew before a move is
    # not news after it.
    watcher = {"QUEUES": '["default", "other"]', "WORKER_QUEUES": '["other"]', "POLL_SECONDS": "0.05"}
    workers = [service.worker(**clock.environment), service.worker(**clock.environment, **watcher)]
    wait_until(lambda: service.whole_log().count(" ready.") == 2, service.log)
    job_id = service.submit("double-slow", num_epochs=STEPS, model_name=MODEL)
    for steps, seconds in ((1, HOUR), (16, -HOUR), (31, 0)):
        wait_until(lambda steps=steps: len(steps_of(service, job_id)) >= steps, service.log)
        clock.move(seconds)

    job = service.wait_for(job_id)
    assert (job.state, job.attempts, job.lost) == (JobState.SUCCEEDED, 1, 0)
    check_taken_up_once(service, [job_id], MODEL)
    assert steps_of(service, job_id) == list(range(1, STEPS + 1))
    events = service.services.job_records.events(Developer, job_id, limit=1000)
    said_at = [event.created_at.timestamp() for event in events]
    assert max(said_at) - min(said_at) > 1.9 * HOUR  # the trainer's clock did move, both ways
    assert [worker.poll() for worker in workers] == [None, None]
