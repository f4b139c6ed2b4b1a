"""Who is claimed next, what may wait, and pauses: the same over SQLite and PostgreSQL."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.core.entities.jobs import JobError, JobEvent, JobState, Order
from app.core.entities.limits import ProjectLimits
from app.core.errors import Conflict, NotFound, StaleAttempt, TooMany

NOW = datetime(2026, 5, 5, tzinfo=UTC)
SEGFAULT = JobError("trainer_failed", "the trainer ended by SIGSEGV")


def claimed(jobs, times, **options):
    claims = [jobs.claim("worker", 30, **options) for _ in range(times)]
    return [claim and claim.job.id for claim in claims]


def test_projects_take_turns_however_many_jobs_they_have(jobs, add):
    mine = [add() for _ in range(4)]
    theirs = [add(project_id="other") for _ in range(2)]
    order = []
    for _ in range(6):  # one slot: each ends before the next is claimed
        claim = jobs.claim("worker", 30)
        order.append(claim.job.id)
        jobs.move(claim.job.id, claim.fence, JobState.FAILED)
    assert order == [mine[0], theirs[0], mine[1], theirs[1], mine[2], mine[3]]


def test_the_project_that_holds_the_fewest_comes_first(jobs, add):
    mine = [add() for _ in range(3)]
    assert claimed(jobs, 2) == mine[:2]
    theirs = [add(project_id="other") for _ in range(3)]
    assert claimed(jobs, 4) == [theirs[0], theirs[1], mine[2], theirs[2]]


def test_within_a_project_priority_then_age(jobs, add):
    low, old, young, high = add(priority=-1), add(), add(), add(priority=5)
    assert claimed(jobs, 4) == [high, old, young, low]


def test_what_is_to_be_validated_does_not_wait_for_what_trains(jobs, add):
    trains, checked = add(priority=9), add(state=JobState.VALIDATING_FILES)
    assert claimed(jobs, 2) == [checked, trains]


def test_a_worker_takes_from_its_own_queues(jobs, add):
    default, large = add(), add(queue="large")
    assert claimed(jobs, 2, queues=["large"]) == [large, None]
    assert claimed(jobs, 2, queues=["large", "default"]) == [default, None]


def test_no_more_of_a_project_train_than_may(jobs, add):
    mine = [add() for _ in range(3)]
    theirs = add(project_id="other")
    jobs.set_limits("other", ProjectLimits(running=2))
    at_most_one = ProjectLimits(running=1)
    assert claimed(jobs, 3, limits=at_most_one) == [mine[0], theirs, None]
    checked = add(state=JobState.VALIDATING_FILES)
    more = add(project_id="other")
    assert claimed(jobs, 3, limits=at_most_one) == [checked, more, None]  # to validate is not to train
    jobs.set_limits("default", ProjectLimits(running=2))
    assert claimed(jobs, 2, limits=at_most_one) == [mine[1], None]
    assert claimed(jobs, 1) == [None]


def test_no_more_of_a_project_wait_than_may(jobs, add, make_job):
    limits = ProjectLimits(queued=2)
    waiting = add(state=JobState.VALIDATING_FILES)
    add(project_id="other")
    jobs.add([make_job()], limits)
    with pytest.raises(TooMany, match="2 jobs of this project wait") as refused:
        jobs.add([make_job()], limits)
    assert refused.value.code == "too_many_jobs"
    assert len(jobs.list("default")) == 2
    jobs.request_cancel("default", waiting)
    jobs.add([make_job()], limits)
    jobs.set_limits("default", ProjectLimits(queued=3))
    jobs.add([make_job()], limits)
    with pytest.raises(TooMany):
        jobs.add([make_job()])


def test_limits_of_a_project(jobs):
    assert jobs.limits("default") == ProjectLimits()
    jobs.set_limits("default", ProjectLimits(3, 5))
    assert jobs.limits("default") == ProjectLimits(3, 5)
    assert jobs.limits("other") == ProjectLimits()
    assert jobs.limits("nowhere") is None
    with pytest.raises(NotFound, match="no project"):
        jobs.set_limits("nowhere", ProjectLimits())


def test_a_queued_job_is_paused_at_once_and_goes_on_when_asked(jobs, add):
    job_id = add()
    assert jobs.request_pause("default", job_id).state is JobState.PAUSED
    assert jobs.request_pause("default", job_id).state is JobState.PAUSED
    assert claimed(jobs, 1) == [None]
    assert jobs.resume("default", job_id).state is JobState.QUEUED
    with pytest.raises(Conflict, match="queued cannot become queued"):
        jobs.resume("default", job_id)
    assert claimed(jobs, 1) == [job_id]


def test_a_running_job_pauses_when_its_attempt_has_stopped(jobs, add):
    job_id = add()
    fence = jobs.claim("worker", 30).fence
    assert jobs.renew(job_id, fence) is Order.GO_ON
    assert jobs.request_pause("default", job_id).state is JobState.PAUSING
    assert jobs.renew(job_id, fence) is Order.PAUSE
    with pytest.raises(Conflict, match="pausing cannot become queued"):
        jobs.resume("default", job_id)
    assert jobs.give_back(job_id, fence) is JobState.PAUSED
    assert jobs.leases() == []
    jobs.resume("default", job_id)
    again = jobs.claim("worker", 30)
    assert (again.fence, again.job.attempts, again.job.lost) == (fence + 1, 2, 0)


def test_a_pausing_job_that_is_cancelled_is_cancelled(jobs, add):
    job_id = add()
    fence = jobs.claim("worker", 30).fence
    jobs.request_pause("default", job_id)
    jobs.request_cancel("default", job_id)
    assert jobs.renew(job_id, fence) is Order.CANCEL
    assert jobs.give_back(job_id, fence) is JobState.CANCELLED


def test_a_paused_job_can_be_cancelled(jobs, add):
    job_id = add()
    jobs.request_pause("default", job_id)
    assert jobs.request_cancel("default", job_id).state is JobState.CANCELLED


@pytest.mark.parametrize("state", [JobState.VALIDATING_FILES, JobState.SUCCEEDED, JobState.CANCELLED])
def test_what_does_not_train_is_not_paused(jobs, add, state):
    job_id = add(state=state)
    with pytest.raises(Conflict) as refused:
        jobs.request_pause("default", job_id)
    assert refused.value.code == "invalid_transition"
    assert jobs.get("default", job_id).state is state


def test_a_job_that_is_being_cancelled_is_not_paused(jobs, add):
    job_id = add()
    jobs.claim("worker", 30)
    jobs.request_cancel("default", job_id)
    with pytest.raises(Conflict, match="being cancelled"):
        jobs.request_pause("default", job_id)


@pytest.mark.parametrize(
    ("state", "after"),
    [(JobState.QUEUED, JobState.QUEUED), (JobState.VALIDATING_FILES, JobState.VALIDATING_FILES)],
)
def test_a_drained_attempt_costs_the_job_nothing(jobs, add, state, after):
    job_id = add(state=state)
    for _ in range(5):
        claim = jobs.claim("worker", 30)
        assert jobs.give_back(job_id, claim.fence) is after
    assert jobs.get("default", job_id).lost == 0


def test_a_lost_trainer_is_replaced_until_it_was_lost_too_often(jobs, add):
    job_id = add()
    after = [jobs.give_up(job_id, jobs.claim("worker", 30).fence, SEGFAULT, 3) for _ in range(3)]
    assert after == [JobState.QUEUED, JobState.QUEUED, JobState.FAILED]
    job = jobs.get("default", job_id)
    assert (job.error.code, job.lost) == ("poisoned", 3)
    assert "SIGSEGV" in job.error.message


def test_a_job_lost_while_it_pauses_is_paused(jobs, add):
    by_its_worker, by_the_reaper = add(), add()
    fence = jobs.claim("worker", 30).fence
    jobs.request_pause("default", by_its_worker)
    assert jobs.give_up(by_its_worker, fence, SEGFAULT, 3) is JobState.PAUSED
    jobs.claim("worker", 30)
    jobs.request_pause("default", by_the_reaper)
    (lease,) = jobs.leases()
    assert jobs.release_lost(replace(lease, heartbeat=7), 3) is None
    assert jobs.release_lost(lease, 3) is JobState.PAUSED


def test_events_of_an_earlier_claim_are_kept_once_under_a_later_one(jobs, add):
    job_id = add()
    events = [JobEvent(seq, "message", "info", f"word {seq}", NOW) for seq in (1, 2, 3)]
    first = jobs.claim("worker", 30).fence
    jobs.ingest(job_id, first, events[:1], None)
    jobs.give_back(job_id, first)
    later = jobs.claim("worker", 30).fence
    assert [jobs.last_seq(job_id, fence) for fence in (first, later)] == [1, 0]
    for _ in range(2):
        jobs.ingest(job_id, later, events, None, said_in=first)
    jobs.ingest(job_id, later, events[:1], None)
    assert [(e.seq, e.message) for e in jobs.events("default", job_id)] == [
        *((1, "word 1"), (2, "word 2"), (3, "word 3")),
        (4, "word 1"),
    ]
    assert [jobs.last_seq(job_id, fence) for fence in (first, later, 99)] == [3, 1, 0]
    latest = jobs.latest_events("default", job_id, limit=2)
    assert latest == jobs.events("default", job_id)[:1:-1]
    assert jobs.latest_events("default", job_id, before=3) == jobs.events("default", job_id)[1::-1]
    assert jobs.latest_events("other", job_id) == []
    with pytest.raises(StaleAttempt):
        jobs.ingest(job_id, first, events, None, said_in=first)


def test_a_job_remembers_how_it_was_asked_for(jobs, add):
    asked = {"priority": 3, "queue": "large", "retry_of": "job-000"}
    job = jobs.get("default", add(**asked))
    assert {key: getattr(job, key) for key in asked} == asked


def test_a_retried_request_adds_nothing_where_its_job_is(jobs, make_job):
    def add(*, is_retry, since, **others):
        [job] = jobs.add([make_job(request_key="k", is_retry=is_retry, **others)], since=since)
        return job

    at = make_job().created_at
    first = add(is_retry=False, since=at)
    assert jobs.get("default", first.id) == first
    meant = add(is_retry=False, since=at)
    assert meant.id != first.id
    assert add(is_retry=True, since=at).id in (first.id, meant.id)
    assert jobs.add([make_job(request_key="other", is_retry=True)], since=at)[0].request_key == "other"
    assert add(is_retry=True, since=at, project_id="other").project_id == "other"
    overtook = add(is_retry=True, since=datetime.now(UTC) + timedelta(days=1))
    assert overtook.id not in (first.id, meant.id)
    assert add(is_retry=False, since=at).id == overtook.id
