"""What every JobRepository does, alone."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from app.core.entities.jobs import FINAL_STATES, JobError, JobEvent, JobState, Lease, Order, Progress
from app.core.errors import Conflict, Fault, Invalid, StaleAttempt
from app.core.interfaces.job_kinds import Finished

NOW = datetime(2026, 5, 5, 5, 5, 5, 55, tzinfo=UTC)


def event(seq, message="step", **data):
    return JobEvent(seq, "metrics", "info", message, NOW, data)


@pytest.fixture
def jobs(repositories):
    return repositories.jobs


@pytest.fixture
def held(repositories, make_job):
    """A running job and its fence."""
    job = make_job()
    repositories.jobs.add([job])
    return job.id, repositories.claim(job.id)


def test_a_job_comes_back_as_it_went_in(jobs, make_job):
    first = make_job()
    jobs.add([first])
    in_new_york = datetime(2026, 2, 3, 4, 5, 6, 789, tzinfo=timezone(timedelta(hours=-5)))
    job = make_job(
        state=JobState.FAILED,
        created_at=in_new_york,
        started_at=NOW,
        finished_at=NOW + timedelta(hours=1),
        run_folder="support_1",
        progress=Progress(step=3, total_steps=9, loss=0.1 + 0.2),
        error=JobError("invalid_data", "no answer", (Fault("row 3", "missing", "no answer"),)),
        model_version_id="v",
        cancel_requested=True,
        attempts=2,
        result={"train_loss": 1 / 3},
        after=[first.id],
        made=["assistant:1"],
    )
    jobs.add([job])
    found = jobs.get("default", job.id)
    assert found == job
    assert found.created_at.utcoffset() is not None


def test_a_job_that_is_not_there(jobs, make_job):
    jobs.add([make_job()])
    assert jobs.get("default", "nowhere") is None
    assert jobs.get("default", "job-000\x00") is None
    assert jobs.get("default", "\ud800") is None
    assert jobs.request_cancel("default", "nowhere") is None
    assert jobs.events("default", "nowhere") == []


def test_lists_newest_first_by_pages_and_by_state(jobs, make_job):
    same_time = [make_job(created_at=NOW) for _ in range(3)]
    made = [*(make_job() for _ in range(4)), *same_time]
    for job in made:
        jobs.add([job])
    jobs.request_cancel("default", made[1].id)
    newest_first = [job.id for job in sorted(made, key=lambda job: (job.created_at, job.id), reverse=True)]

    seen, after = [], None
    while page := jobs.list("default", limit=2, after=after):
        seen += [job.id for job in page]
        after = page[-1].id
    assert seen == newest_first
    assert [job.id for job in jobs.list("default", state=JobState.CANCELLED)] == [made[1].id]
    assert len(jobs.list("default", state=JobState.QUEUED, after=newest_first[0])) == 5
    with pytest.raises(Invalid) as refused:
        jobs.list("default", after="nowhere")
    assert [fault.where for fault in refused.value.faults] == ["after"]


def test_lists_those_that_have_all_of_the_metadata(jobs, make_job):
    given = {"team": "a", 'a "key" of $.é 😀': 'it\'s "b" é😀', "none": "", "nul\x00": "\ud800"}
    first, second = make_job(request={"metadata": given}), make_job(request={"metadata": {"team": "a"}})
    other = make_job(request={"metadata": {"team": "a"}}, project_id="other")
    for job in (first, second, make_job(request={"metadata": {"team": "A"}}), make_job(), other):
        jobs.add([job])
    for key, value in given.items():
        wanted = [second.id, first.id] if key == "team" else [first.id]
        assert [job.id for job in jobs.list("default", metadata={key: value})] == wanted
    assert [job.id for job in jobs.list("default", metadata=given)] == [first.id]
    assert jobs.list("default", metadata={**given, "team": "b"}) == []
    assert jobs.list("default", metadata={"'": "%"}) == []
    chosen = {"metadata": {"team": "a"}, "limit": 1}
    assert [job.id for job in jobs.list("default", **chosen, after=second.id)] == [first.id]
    assert jobs.list("default", **chosen, state=JobState.FAILED) == []


def test_counts_every_state_over_all_projects(jobs, make_job):
    assert jobs.count_by_state() == dict.fromkeys(JobState, 0)
    for project in ("default", "other"):
        jobs.add([make_job(project_id=project)])
    jobs.add([make_job(state=JobState.VALIDATING_FILES)])
    assert jobs.count_by_state() == {
        **dict.fromkeys(JobState, 0),
        JobState.QUEUED: 2,
        JobState.VALIDATING_FILES: 1,
    }


def test_claims_what_is_to_be_validated_then_the_oldest_each_once(jobs, make_job):
    young, old, validating = (
        make_job(created_at=NOW + timedelta(hours=hours), state=state)
        for hours, state in [(2, JobState.QUEUED), (0, JobState.QUEUED), (1, JobState.VALIDATING_FILES)]
    )
    for job in (young, old, validating, make_job(state=JobState.SUCCEEDED)):
        jobs.add([job])
    claims = [jobs.claim("worker", 12.5) for _ in range(4)]
    assert [claim and claim.job.id for claim in claims] == [validating.id, old.id, young.id, None]
    second, first = claims[:2]
    assert (first.job.state, first.job.attempts) == (JobState.RUNNING, 1)
    assert first.job.started_at is not None
    assert (first.fence, first.owner, first.lease_seconds) == (1, "worker", 12.5)
    assert (second.job.state, second.job.attempts, second.job.started_at) == (JobState.VALIDATING_FILES, 0, None)
    assert jobs.get("default", old.id) == first.job


def test_claims_one_job_by_id(jobs, make_job):
    first, second = make_job(), make_job()
    jobs.add([first])
    jobs.add([second])
    assert jobs.claim("worker", 30, "nowhere") is None
    assert jobs.claim("worker", 30, second.id).job.id == second.id
    assert jobs.claim("worker", 30, second.id) is None


def test_a_foreground_job_is_left_to_its_command(jobs, make_job):
    job = make_job(created_by=None)
    jobs.add([job])
    assert jobs.claim("worker", 30) is None
    assert jobs.claim("its command", 30, job.id).job.id == job.id


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.VALIDATING_FILES])
def test_a_foreground_job_whose_command_is_lost_has_failed(jobs, make_job, state):
    job = make_job(created_by=None, state=state)
    jobs.add([job])
    jobs.claim("its command", 30, job.id)
    (lease,) = jobs.leases()
    assert jobs.release_lost(lease, 3) is JobState.FAILED
    assert jobs.get("default", job.id).error.code == "interrupted"


def test_the_fence_grows_with_each_claim_and_the_first_start_stays(jobs, held):
    job_id, fence = held
    started = jobs.get("default", job_id).started_at
    jobs.move(job_id, fence, JobState.QUEUED)
    again = jobs.claim("other worker", 30)
    assert (again.fence, again.job.attempts, again.job.started_at) == (fence + 1, 2, started)


def test_cancels_a_waiting_job_at_once(jobs, make_job):
    for state in (JobState.QUEUED, JobState.VALIDATING_FILES):
        job = make_job(state=state)
        jobs.add([job])
        cancelled = jobs.request_cancel("default", job.id)
        assert cancelled.state is JobState.CANCELLED
        assert cancelled.finished_at is not None
        assert jobs.claim("worker", 30) is None
        assert jobs.request_cancel("default", job.id) == cancelled


def test_marks_a_held_job_and_its_heartbeat_hears_of_it(jobs, held):
    job_id, fence = held
    assert jobs.renew(job_id, fence) is Order.GO_ON
    marked = jobs.request_cancel("default", job_id)
    assert (marked.state, marked.cancel_requested) == (JobState.RUNNING, True)
    assert jobs.renew(job_id, fence) is Order.CANCEL
    jobs.move(job_id, fence, JobState.CANCELLED)
    assert jobs.get("default", job_id).state is JobState.CANCELLED


def test_leaves_a_final_job(jobs, held):
    job_id, fence = held
    jobs.move(job_id, fence, JobState.FAILED, JobError("nan_loss", "NaN"))
    before = jobs.get("default", job_id)
    assert jobs.request_cancel("default", job_id) == before


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.VALIDATING_FILES])
def test_a_job_put_back_after_a_cancel_is_cancelled_not_stranded(jobs, make_job, state):
    waiting = JobState.QUEUED if state is JobState.RUNNING else state
    drained, lost = make_job(state=waiting), make_job(state=waiting)
    for job in (drained, lost):
        jobs.add([job])
        claim = jobs.claim("worker", 30)
        jobs.request_cancel("default", job.id)
        if job is drained:
            jobs.move(job.id, claim.fence, JobState.QUEUED)
        else:
            assert jobs.release_lost(jobs.leases()[0], 3) is JobState.CANCELLED
        ended = jobs.get("default", job.id)
        assert ended.state is JobState.CANCELLED
        assert ended.finished_at is not None
    assert jobs.leases() == []


def test_moves_by_the_table_only_and_lets_go(jobs, held):
    job_id, fence = held
    with pytest.raises(Conflict, match="running cannot become validating_files"):
        jobs.move(job_id, fence, JobState.VALIDATING_FILES)
    assert jobs.get("default", job_id).state is JobState.RUNNING
    error = JobError("out_of_memory", "needs 9 GB", (Fault("config.batch_size", "too_large", "lower it"),))
    jobs.move(job_id, fence, JobState.FAILED, error)
    failed = jobs.get("default", job_id)
    assert (failed.state, failed.error) == (JobState.FAILED, error)
    assert abs(failed.finished_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert jobs.leases() == []


def test_validation_ends_in_the_queue(jobs, make_job):
    job = make_job(state=JobState.VALIDATING_FILES)
    jobs.add([job])
    jobs.move(job.id, jobs.claim("worker", 30).fence, JobState.QUEUED)
    claim = jobs.claim("worker", 30)
    assert (claim.job.state, claim.fence, claim.job.finished_at) == (JobState.RUNNING, 2, None)


def test_a_stale_attempt_is_refused_and_changes_nothing(jobs, held, make_job, make_version):
    job_id, old = held
    version = make_version(jobs.get("default", job_id))
    writes = [
        lambda fence: jobs.renew(job_id, fence),
        lambda fence: jobs.ingest(job_id, fence, [event(1)], Progress(step=9)),
        lambda fence: jobs.set_run_folder(job_id, fence, "elsewhere"),
        lambda fence: jobs.move(job_id, fence, JobState.FAILED),
        lambda fence: jobs.give_back(job_id, fence),
        lambda fence: jobs.give_up(job_id, fence, JobError("trainer_failed", "by SIGSEGV"), 3),
        lambda fence: jobs.succeed(job_id, fence, Finished({}, [version])),
    ]

    def all_refused(fences):
        before = jobs.get("default", job_id), jobs.leases(), jobs.events("default", job_id)
        for fence in fences:
            for write in writes:
                with pytest.raises(StaleAttempt):
                    write(fence)
        assert (jobs.get("default", job_id), jobs.leases(), jobs.events("default", job_id)) == before

    all_refused([old + 1, 0])
    jobs.move(job_id, old, JobState.QUEUED)
    all_refused([old])  # let go
    new = jobs.claim("worker", 30).fence
    all_refused([old])  # claimed anew
    jobs.move(job_id, new, JobState.CANCELLED)
    all_refused([old, new])  # ended
    with pytest.raises(StaleAttempt):
        jobs.renew("nowhere", 1)


def test_keeps_events_once_and_numbers_them_over_the_jobs_life(jobs, held):
    job_id, fence = held
    jobs.ingest(job_id, fence, [event(1, "a", loss=1.5), event(2, "b")], Progress(step=2, loss=1.5))
    jobs.ingest(job_id, fence, [event(2, "b"), event(3, "c"), event(3, "c")], None)
    jobs.ingest(job_id, fence, [], None)
    assert jobs.get("default", job_id).progress == Progress(step=2, loss=1.5)
    jobs.move(job_id, fence, JobState.QUEUED)
    again = jobs.claim("worker", 30).fence
    jobs.ingest(job_id, again, [event(1, "d"), event(2, "e")], Progress(step=1))

    kept = jobs.events("default", job_id)
    assert [(e.seq, e.message) for e in kept] == [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")]
    assert kept[0] == event(1, "a", loss=1.5)
    assert [e.seq for e in jobs.events("default", job_id, after=2, limit=2)] == [3, 4]
    assert jobs.events("default", job_id, after=5) == []
    assert jobs.get("default", job_id).progress == Progress(step=1)


def test_a_jobs_own_texts_and_figures_cannot_break_a_write(repositories, make_job):
    job = make_job()
    repositories.jobs.add([job])
    fence = repositories.claim()
    wild = event(
        1, "NUL \x00, half a pair \ud800, a pair \ud83d\ude00", loss=float("nan"), deep=[{"\x00": -math.inf}]
    )
    repositories.jobs.ingest(job.id, fence, [wild], Progress(step=1, loss=math.inf, eval_loss=math.nan))
    (kept,) = repositories.jobs.events("default", job.id)
    assert kept.message == "NUL \ufffd, half a pair \ufffd, a pair \U0001f600"
    assert kept.data == {"loss": None, "deep": [{"\ufffd": None}]}
    assert repositories.jobs.get("default", job.id).progress == Progress(step=1)


def test_names_the_run_folder(jobs, held):
    job_id, fence = held
    jobs.set_run_folder(job_id, fence, "support_2026")
    assert jobs.get("default", job_id).run_folder == "support_2026"


def test_success_publishes_the_next_number_of_the_name(repositories, make_job, make_version):
    jobs = repositories.jobs
    for project, name, number in [
        ("default", "assistant", 1),
        ("default", "assistant", 2),
        ("default", "triage", 1),
        ("other", "assistant", 1),
    ]:
        job = make_job(project_id=project)
        jobs.add([job])
        version = make_version(job, name=name)
        fence = repositories.claim(job.id)
        made = jobs.succeed(job.id, fence, Finished({"eval_loss": 0.5}, [version]))
        assert made == [f"{name}:{number}"]
        assert repositories.versions.get(project, version.id) == replace(version, number=number)
        ended = jobs.get(project, job.id)
        assert (ended.state, ended.model_version_id) == (JobState.SUCCEEDED, version.id)
        assert (ended.result, ended.made) == ({"eval_loss": 0.5}, made)
        assert (jobs.has_succeeded(job.id, fence), jobs.has_succeeded(job.id, fence + 1)) == (True, False)
        assert ended.finished_at is not None
    assert jobs.leases() == []


def test_a_success_that_may_not_be_publishes_nothing(repositories, make_job, make_version):
    jobs = repositories.jobs
    job = make_job(state=JobState.VALIDATING_FILES)
    jobs.add([job])
    fence = repositories.claim()
    for version in (make_version(job, project_id="other"), make_version(job)):  # foreign; not running
        with pytest.raises(Conflict):
            jobs.succeed(job.id, fence, Finished({}, [version]))
    assert repositories.versions.versions("default", "assistant") == []
    assert repositories.versions.versions("other", "assistant") == []
    assert jobs.get("default", job.id).state is JobState.VALIDATING_FILES


def test_a_lease_is_released_only_while_its_heart_stands_still(jobs, held):
    job_id, fence = held
    (lease,) = jobs.leases()
    assert lease == Lease(job_id, fence, 0, 30)
    jobs.renew(job_id, fence)
    assert jobs.release_lost(lease, 3) is None
    (beat,) = jobs.leases()
    assert jobs.release_lost(replace(beat, fence=fence + 1), 3) is None
    assert jobs.get("default", job_id).state is JobState.RUNNING
    assert jobs.release_lost(beat, 3) is JobState.QUEUED
    assert jobs.release_lost(beat, 3) is None
    assert jobs.leases() == []


def test_a_job_that_loses_every_worker_is_poisoned(jobs, make_job):
    job = make_job()
    jobs.add([job])
    after = []
    for _ in range(3):
        jobs.claim("worker", 30)
        after.append(jobs.release_lost(jobs.leases()[0], 3))
    assert after == [JobState.QUEUED, JobState.QUEUED, JobState.FAILED]
    failed = jobs.get("default", job.id)
    assert (failed.error.code, failed.attempts) == ("poisoned", 3)
    assert "3 attempts" in failed.error.message
    assert failed.state in FINAL_STATES


def test_lost_while_validating_stays_for_the_next(jobs, make_job):
    jobs.add([make_job(state=JobState.VALIDATING_FILES)])
    for fence, after in [(1, JobState.VALIDATING_FILES), (2, JobState.VALIDATING_FILES), (3, JobState.FAILED)]:
        claim = jobs.claim("worker", 30)
        assert (claim.fence, claim.job.attempts) == (fence, 0)
        assert jobs.release_lost(jobs.leases()[0], 3) is after


def test_no_method_reaches_into_another_project(jobs, held):
    job_id, fence = held
    jobs.ingest(job_id, fence, [event(1)], None)
    assert jobs.get("other", job_id) is None
    assert jobs.list("other") == []
    with pytest.raises(Invalid):
        jobs.list("other", after=job_id)
    assert jobs.request_cancel("other", job_id) is None
    assert jobs.request_pause("other", job_id) is None
    assert jobs.resume("other", job_id) is None
    assert jobs.renew(job_id, fence) is Order.GO_ON
    assert jobs.events("other", job_id) == []
