"""Any order of calls: the databases do the same, no job is stranded, and each goes by the table of moves."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import delete, update

from app.core.entities.jobs import (
    FINAL_STATES,
    RUNNING_STATES,
    TRANSITIONS,
    JobError,
    JobEvent,
    JobState,
    Lease,
    Progress,
)
from app.core.entities.limits import ProjectLimits
from app.core.errors import AppError
from app.core.interfaces.job_kinds import Finished
from app.repositories.database import Database
from app.repositories.jobs import SqlJobRepository
from app.repositories.tables import JobEventRow, JobMetricChunkRow, JobRow, ModelVersionRow, ProjectRow
from tests.integration.repositories.conftest import rounded

MAX_ATTEMPTS = 2
LIMITS = ProjectLimits(queued=6)
indexes = st.sampled_from([0, 0, 0, 1, 2])
fences = st.sampled_from([0, 0, 0, 1])  # how far behind the newest
moves = st.sampled_from([JobState.QUEUED, *JobState])


def later(state):
    """Where moves may take a job of that state in the end."""
    found = {state}
    while found != (found := found.union(*(TRANSITIONS[one] for one in found))):
        pass
    return found


LATER = {state: later(state) for state in JobState}


class JobLife(RuleBasedStateMachine):
    def __init__(self, engines, make_job, make_version):
        super().__init__()
        for engine in engines:
            with Database(engine).write() as session:
                for table in (JobEventRow, JobMetricChunkRow, ModelVersionRow, JobRow):
                    session.execute(delete(table))
                session.execute(update(ProjectRow).values(last_turn=0, max_running=None, max_queued=None))
        self.all = [SqlJobRepository(engine) for engine in engines]
        self.make_job, self.make_version = make_job, make_version
        self.fence, self.seen = {}, {}
        self.add(JobState.QUEUED)

    def same(self, call):
        """The outcome of a call, alike on all: a value, or the error's class and code."""
        outcomes = []
        for repository in self.all:
            try:
                outcomes.append(call(repository))
            except AppError as error:
                outcomes.append((type(error), error.code, error.message))
        first, *others = map(without_times, outcomes)
        assert all(other == first for other in others)
        return outcomes[0]

    def pick(self, index):
        """A held job first, then one that waits, then one that ended: else most calls would meet those."""
        held = {lease.job_id for lease in self.all[0].leases()}
        newest = self.all[0].list("default", limit=3)
        ranked = sorted(newest, key=lambda job: (job.state in FINAL_STATES, job.id not in held))
        job = ranked[index % len(ranked)]
        return job, self.fence.get(job.id, 0)

    def pick_held(self, index):
        """Sees to it that a job is held, then picks."""
        if not self.all[0].leases() and not self.take(None):
            self.add(JobState.QUEUED)
            self.take(None)
        return self.pick(index)

    @rule(
        state=st.sampled_from([JobState.QUEUED, JobState.VALIDATING_FILES]),
        priority=st.sampled_from([-1, 0, 0, 2]),
        project_id=st.sampled_from(["default", "default", "other"]),
        queue=st.sampled_from(["default", "default", "large"]),
    )
    def submit(self, state, **of_job):
        self.add(state, **of_job)

    def add(self, state, **of_job):
        job = self.make_job(state=state, **of_job)
        self.same(lambda jobs: jobs.add([job], LIMITS))
        return job

    @rule(index=st.sampled_from([None, None, 0, 1]), queues=st.sampled_from([None, None, ["default"], ["large"]]))
    def claim(self, index, queues):
        self.take(None if index is None else self.pick(index)[0].id, queues=queues)

    @rule(running=st.sampled_from([None, 1, 2]), project_id=st.sampled_from(["default", "other"]))
    def limit(self, running, project_id):
        self.same(lambda jobs: jobs.set_limits(project_id, ProjectLimits(running)))

    def take(self, chosen, **options):
        claim = self.same(lambda jobs: jobs.claim("worker", 30, chosen, limits=LIMITS, **options))
        if claim is not None:
            assert claim.fence > self.fence.get(claim.job.id, 0)
            self.fence[claim.job.id] = claim.fence
        return claim

    @rule(index=indexes, behind=fences)
    def renew(self, index, behind):
        job, fence = self.pick_held(index)
        self.same(lambda jobs: jobs.renew(job.id, fence - behind))

    @rule(index=indexes, behind=fences, to=moves)
    def move(self, index, behind, to):
        job, fence = self.pick_held(index)
        error = JobError("nan_loss", "NaN") if to is JobState.FAILED else None
        self.same(lambda jobs: jobs.move(job.id, fence - behind, to, error))

    @rule(index=indexes, behind=fences, name=st.sampled_from(["a", "b"]))
    def succeed(self, index, behind, name):
        job, fence = self.pick_held(index)
        version = self.make_version(job, name=name)
        self.same(lambda jobs: jobs.succeed(job.id, fence - behind, Finished({"loss": 0.5}, [version])))

    @rule(
        index=indexes,
        behind=fences,
        seqs=st.lists(st.integers(1, 6), max_size=4),
        step=st.sampled_from([0, 1, 9, 30, 500]),
        said_before=st.integers(0, 2),
    )
    def ingest(self, index, behind, seqs, step, said_before):
        job, fence = self.pick_held(index)
        events = [
            JobEvent(seq, "metrics", "info", f"{fence}/{seq}", job.created_at, {"step": step * seq, "loss": seq})
            for seq in seqs
        ]
        progress = Progress(step=max(seqs)) if seqs else None
        claim = fence - behind - said_before
        self.same(
            lambda jobs: jobs.ingest(
                job.id, fence - behind, events, progress, said_in=claim if claim > 0 else None
            )
        )
        for most in (1, 7, 5000):
            self.same(lambda jobs, most=most: rounded(jobs.metrics("default", job.id, most=most)))

    @rule(index=indexes)
    def cancel(self, index):
        job, _ = self.pick(index)
        self.same(lambda jobs: jobs.request_cancel("default", job.id))

    @rule(index=indexes)
    def pause(self, index):
        job, _ = self.pick(index)
        self.same(lambda jobs: jobs.request_pause("default", job.id))

    @rule(index=indexes)
    def resume(self, index):
        job, _ = self.pick(index)
        self.same(lambda jobs: jobs.resume("default", job.id))

    @rule(index=indexes, behind=fences)
    def give_back(self, index, behind):
        job, fence = self.pick_held(index)
        self.same(lambda jobs: jobs.give_back(job.id, fence - behind))

    @rule(index=indexes, behind=fences)
    def give_up(self, index, behind):
        job, fence = self.pick_held(index)
        lost = JobError("trainer_failed", "by SIGSEGV")
        self.same(lambda jobs: jobs.give_up(job.id, fence - behind, lost, MAX_ATTEMPTS))

    @rule(index=indexes, stale=st.booleans())
    def lose(self, index, stale):
        job, fence = self.pick_held(index)
        beats = [lease for lease in self.all[0].leases() if lease.job_id == job.id]
        lease = beats[0] if beats and not stale else Lease(job.id, fence, 7, 30)
        self.same(lambda jobs: jobs.release_lost(lease, MAX_ATTEMPTS))

    @invariant()
    def they_agree_and_nothing_is_stranded(self):
        held = {lease.job_id for lease in self.same(lambda jobs: jobs.leases())}
        self.same(lambda jobs: jobs.count_by_state())
        others = self.same(lambda jobs: jobs.list("other"))
        for job in [*self.same(lambda jobs: jobs.list("default")), *others]:
            final = job.state in FINAL_STATES
            assert (job.state in RUNNING_STATES) <= (job.id in held)
            assert not (job.id in held and (final or job.state is JobState.PAUSED))
            assert not job.cancel_requested or final or job.id in held
            assert final == (job.finished_at is not None)
            assert max(job.attempts, job.lost) <= self.fence.get(job.id, 0)
            assert job.lost <= MAX_ATTEMPTS
            assert job.state in LATER[self.seen.get(job.id, job.state)]
            self.seen[job.id] = job.state
            events = self.same(lambda jobs, job=job: jobs.events(job.project_id, job.id))
            assert [event.seq for event in events] == list(range(1, len(events) + 1))


def without_times(outcome):
    """The two write at moments of their own."""
    if isinstance(outcome, list):
        return [without_times(item) for item in outcome]
    if hasattr(outcome, "finished_at"):
        return replace(outcome, started_at=outcome.started_at and 1, finished_at=outcome.finished_at and 1)
    return replace(outcome, job=without_times(outcome.job)) if hasattr(outcome, "job") else outcome


@pytest.mark.parametrize(
    "kinds", [["sqlite"], pytest.param(["sqlite", "postgres"], marks=pytest.mark.postgres)], ids=" and ".join
)
def test_any_order_of_calls(open_engine, make_job, make_version, kinds):
    engines = [open_engine(kind) for kind in kinds]
    run_state_machine_as_test(
        lambda: JobLife(engines, make_job, make_version),
        settings=settings(
            max_examples=20,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
