"""Jobs of many kinds in one table: whose slots take them, which wait for which, and when they are forgotten."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.core.entities.jobs import JobError, JobEvent, JobState
from app.core.entities.limits import ProjectLimits
from app.core.errors import Conflict, NotFound, TooMany
from app.core.interfaces.job_kinds import Finished
from app.repositories.tables import JobRow

NOW = datetime.now(UTC)
A_DAY_AGO = NOW - timedelta(days=1)
BOOM = JobError("trainer_failed", "it ended")


@pytest.fixture
def light(add):
    """Add a job of a light kind."""
    return lambda **changes: add(kind="estimate", is_light=True, **changes)


@pytest.fixture
def end(jobs):
    """Claim a job and end it."""

    def end_one(job_id, to=JobState.SUCCEEDED):
        claim = jobs.claim("worker", 30, job_id)
        if to is JobState.SUCCEEDED:
            jobs.succeed(job_id, claim.fence, Finished({"seen": 1}))
        else:
            jobs.move(job_id, claim.fence, to, BOOM)

    return end_one


def claimed(jobs, times, **options):
    claims = [jobs.claim("worker", 30, **options) for _ in range(times)]
    return [claim and claim.job.id for claim in claims]


def state(jobs, job_id):
    found = jobs.get("default", job_id)
    return found and found.state


# --- light and heavy ---


def test_a_slot_takes_jobs_of_its_own_weight_alone(jobs, add, light):
    heavy, quick = add(), light(priority=10)
    assert claimed(jobs, 2) == [heavy, None]
    assert claimed(jobs, 2, is_light=True) == [quick, None]


def test_whoever_names_a_job_gets_it_whatever_its_weight(jobs, light):
    """As the foreground does."""
    quick = light()
    assert jobs.claim("worker", 30, quick).job.id == quick


def test_of_light_jobs_any_number_runs_and_heavy_ones_count_together(jobs, add, light):
    trains, scores = add(kind="train"), add(kind="evaluate")
    quick = [light() for _ in range(3)]
    one = ProjectLimits(running=1)
    assert claimed(jobs, 3, limits=one, is_light=True) == quick
    assert claimed(jobs, 2, limits=one) == [trains, None]
    jobs.move(trains, 1, JobState.FAILED, BOOM)
    assert claimed(jobs, 2, limits=one) == [scores, None]


def test_fair_share_counts_the_jobs_of_a_slots_weight(jobs, add, light):
    """Light jobs in hand keep no project from its turn in the heavy slots."""
    for _ in range(2):
        light()
    assert None not in claimed(jobs, 2, is_light=True)
    theirs = [add(project_id="other") for _ in range(2)]
    assert claimed(jobs, 1) == theirs[:1]
    mine = add()
    assert claimed(jobs, 2) == [mine, theirs[1]]


def test_as_many_light_jobs_may_wait_as_heavy_ones(jobs, add, light, make_job):
    two = ProjectLimits(queued=2)
    add(kind="train"), add(kind="evaluate")
    quick = {"kind": "estimate", "is_light": True}
    jobs.add([make_job(**quick), make_job(**quick)], two)
    for more in ({}, quick):
        with pytest.raises(TooMany):
            jobs.add([make_job(**more)], two)
    with pytest.raises(TooMany):  # all or none
        jobs.add([make_job(project_id="other"), make_job(project_id="other"), make_job(project_id="other")], two)
    assert jobs.list("other") == []


# --- those that wait for others ---


def test_a_job_is_claimed_once_all_that_it_waits_for_have_succeeded(jobs, add, light, end):
    first, second = add(), light()
    waits = add(after=[first, second], priority=10)
    assert jobs.claim("worker", 30, waits) is None
    end(first)
    assert claimed(jobs, 1) == [None]
    end(second)
    assert claimed(jobs, 1) == [waits]


@pytest.mark.parametrize("how", [JobState.FAILED, JobState.CANCELLED])
def test_the_end_of_one_takes_all_that_wait_for_it(jobs, add, end, how):
    first = add()
    second = add(after=[first])
    third = add(after=[second], state=JobState.VALIDATING_FILES)
    beside = add()
    if how is JobState.FAILED:
        end(first, how)
    else:
        jobs.request_cancel("default", first)
    for waiting in (second, third):
        found = jobs.get("default", waiting)
        assert (found.state, found.error.code) == (JobState.CANCELLED, "dependency_failed")
    assert first in jobs.get("default", second).error.message
    assert state(jobs, beside) is JobState.QUEUED


def test_only_a_job_of_the_project_that_may_still_succeed_is_waited_for(jobs, add, end, make_job):
    theirs, failed, done = add(project_id="other"), add(), add()
    end(failed, JobState.FAILED)
    end(done)
    with pytest.raises(NotFound):
        jobs.add([make_job(after=[theirs])])
    with pytest.raises(Conflict) as refused:
        jobs.add([make_job(), make_job(after=[failed])])
    assert refused.value.code == "dependency_failed"
    assert len(jobs.list("default")) == 2
    waits = add(after=[done])
    assert claimed(jobs, 1) == [waits]


def test_a_chain_is_added_whole_and_bound_once_its_first_job_has_succeeded(jobs, make_job, end):
    first, second = make_job(kind="process", is_light=True), make_job(config={"dataset_id": "$first"})
    second = replace(second, after=[first.id], inputs={"dataset_id": first.id})
    assert [job.id for job in jobs.add([first, second])] == [first.id, second.id]
    assert jobs.get("default", second.id).inputs == {"dataset_id": first.id}
    end(first.id)
    claim = jobs.claim("worker", 30)
    bound = replace(claim.job, config={"dataset_id": "ds-1:2"}, inputs={}, dataset_digest="new", name="bound")
    jobs.bind(bound, claim.fence)
    found = jobs.get("default", second.id)
    assert (found.config, found.inputs, found.dataset_digest, found.name) == (
        {"dataset_id": "ds-1:2"},
        {},
        "new",
        "bound",
    )


# --- forgotten ---


def test_rows_are_removed_a_day_after_their_end_with_all_that_they_said(jobs, repositories, light, add, end):
    old, young, waiting, running = light(), light(), light(), light()
    other_kind = add(kind="train")
    events = [JobEvent(1, "metrics", "info", "step", NOW, {"step": 1, "total_steps": 2, "loss": 1.0})]
    claim = jobs.claim("worker", 30, old)
    jobs.ingest(old, claim.fence, events, None)
    jobs.succeed(old, claim.fence, Finished({}))
    end(young)
    end(other_kind)
    assert jobs.claim("worker", 30, running) is not None
    for ended in (old, other_kind):
        repositories.change(JobRow, ended, finished_at=A_DAY_AGO - timedelta(seconds=1))
    assert list(jobs.forget("estimate", A_DAY_AGO)) == [old]
    assert jobs.get("default", old) is None
    assert jobs.events("default", old) == []
    assert [state(jobs, one) for one in (young, waiting, running, other_kind)] == [
        JobState.SUCCEEDED,
        JobState.QUEUED,
        JobState.RUNNING,
        JobState.SUCCEEDED,
    ]
    assert list(jobs.forget("estimate", A_DAY_AGO)) == []


def test_a_job_is_not_forgotten_while_another_waits_for_it(jobs, repositories, light, end):
    needed = light()
    waits = light(after=[needed])
    end(needed)
    repositories.change(JobRow, needed, finished_at=A_DAY_AGO - timedelta(days=1))
    assert list(jobs.forget("estimate", A_DAY_AGO)) == []
    end(waits)
    assert list(jobs.forget("estimate", A_DAY_AGO)) == [needed]
    assert jobs.get("default", waits).after == [needed]
    repositories.change(JobRow, waits, finished_at=A_DAY_AGO - timedelta(days=1))
    assert list(jobs.forget("estimate", A_DAY_AGO)) == [waits]


def test_a_look_removes_no_more_than_asked(jobs, repositories, light, end):
    old = [light() for _ in range(3)]
    for one in old:
        end(one)
        repositories.change(JobRow, one, finished_at=A_DAY_AGO - timedelta(days=1))
    assert len(jobs.forget("estimate", A_DAY_AGO, 2)) == 2
    assert len(jobs.forget("estimate", A_DAY_AGO, 2)) == 1
