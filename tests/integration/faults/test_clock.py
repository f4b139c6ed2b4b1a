"""The wall clock of a worker is set an hour forward and back, as by an administrator or an NTP client."""

from pathlib import Path

from app.core.entities.jobs import JobState
from tests.faketime import FakeTime
from tests.integration.faults.conftest import Stack, check_taken_up_once, steps_of
from tests.running_service import Developer, wait_until

HOUR = 3600
STEPS = 75
MODEL = "helper"


def test_a_wall_clock_that_is_set_changes_nothing(stack: Stack, tmp_path: Path) -> None:
    clock = FakeTime(tmp_path)
    service = stack.make(lease_seconds=2.0)
    workers = [service.worker(**clock.environment)]
    job_id = service.submit("double-slow", num_epochs=STEPS, model_name=MODEL)
    wait_until(lambda: steps_of(service, job_id), service.log)
    workers.append(service.worker())  # its clock is right, and it would take the job if it thought it lost
    # Between the moves are more steps, of a tenth of a second, than a lease has.
    for steps, seconds in ((1, HOUR), (26, -HOUR), (51, 0)):
        wait_until(lambda steps=steps: len(steps_of(service, job_id)) >= steps, service.log)
        clock.move(seconds)

    job = service.wait_for(job_id)
    assert (job.state, job.attempts, job.lost) == (JobState.SUCCEEDED, 1, 0)
    check_taken_up_once(service, [job_id], MODEL)
    assert steps_of(service, job_id) == list(range(1, STEPS + 1))
    events = service.services.training.events(Developer, job_id, limit=1000)
    said_at = [event.created_at.timestamp() for event in events]
    assert max(said_at) - min(said_at) > 1.9 * HOUR  # the trainer's clock did move, both ways
    assert [worker.poll() for worker in workers] == [None, None]
