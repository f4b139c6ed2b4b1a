"""The in-memory twin of the jobs' repository."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from app.core.entities.identity import DEFAULT_PROJECT_ID
from app.core.entities.jobs import (
    FINAL_STATES,
    LOST_WORKER,
    TRAINING_STATES,
    WAITING_STATES,
    Claim,
    FineTuningJob,
    JobError,
    JobEvent,
    JobState,
    Lease,
    Order,
    Progress,
    after_loss,
    after_pause,
    after_stop,
    check_end,
    check_move,
    check_resume,
    check_room,
    order_for,
    stale,
)
from app.core.entities.limits import ProjectLimits, ProjectUse
from app.core.entities.metrics import MetricCurve, MetricPoint, point_of, reduced, surviving, width_for
from app.core.entities.models import ModelVersion
from app.core.errors import Conflict, no_project, unknown_page
from app.core.interfaces.storage import NO_LIMITS, JobRepository
from app.repositories.memory import MemoryDatasetRepository, MemoryModelVersionRepository, locked
from app.repositories.quota_rules import ONE_VERSION, check_quotas


@dataclass
class _Kept:
    job: FineTuningJob
    owner: str | None = None
    fence: int = 0
    heartbeat: int = 0
    lease_seconds: float = 0.0
    events: dict[tuple[int, int], JobEvent] = field(default_factory=dict)  # by (fence, seq), in order

    def change(self, **changes: Any) -> None:
        self.job = replace(self.job, **changes)

    def move(self, to: JobState) -> None:
        check_move(self.job.state, to)
        self.change(state=to, finished_at=datetime.now(UTC) if to in FINAL_STATES else None)

    def let_go(self, to: JobState, error: JobError | None = None) -> JobState:
        if to is not self.job.state:
            self.move(to)
        self.change(error=error)
        self.owner = None
        return to

    def lose(self, error: JobError, max_attempts: int, *, has_worker: bool) -> JobState:
        self.change(lost=self.job.lost + 1)
        return self.let_go(*after_loss(self.job, error, max_attempts, has_worker=has_worker))


class MemoryJobRepository(JobRepository):
    def __init__(
        self,
        versions: MemoryModelVersionRepository | None = None,
        datasets: MemoryDatasetRepository | None = None,
        projects: Sequence[str] = (DEFAULT_PROJECT_ID,),
    ) -> None:
        self._kept: dict[str, _Kept] = {}
        self._versions = versions or MemoryModelVersionRepository()
        self._datasets = datasets or MemoryDatasetRepository()
        self._datasets.check_quota = self._check_quotas
        self._limits = dict.fromkeys(projects, NO_LIMITS)
        self._turns: dict[str, int] = {}  # of projects: the number of their last claim

    @locked
    def add(
        self, job: FineTuningJob, limits: ProjectLimits = NO_LIMITS, *, since: datetime | None = None
    ) -> FineTuningJob:
        for there in [kept.job for kept in self._kept.values()]:
            same = (there.project_id, there.request_key) == (job.project_id, job.request_key)
            is_new = since is not None and there.created_at >= since
            if same and is_new and (job.is_retry or there.is_retry):
                return there
        check_room(self._count(job.project_id, WAITING_STATES), self._effective(job.project_id, limits))
        self._check_quotas(job.project_id, limits, ONE_VERSION)
        if job.dataset_id is not None:
            self._datasets.refer(job.project_id, job.dataset_id)
        self._kept[job.id] = _Kept(job)
        return job

    @locked
    def get(self, project_id: str, job_id: str) -> FineTuningJob | None:
        kept = self._of_project(project_id, job_id)
        return kept.job if kept else None

    @locked
    def list(
        self, project_id: str, *, state: JobState | None = None, limit: int = 20, after: str | None = None
    ) -> Sequence[FineTuningJob]:
        jobs = [kept.job for kept in self._kept.values() if kept.job.project_id == project_id]
        jobs.sort(key=lambda job: (job.created_at, job.id), reverse=True)
        if after is not None:
            places = [place for place, job in enumerate(jobs) if job.id == after]
            if not places:
                raise unknown_page("job", after)
            jobs = jobs[places[0] + 1 :]
        return [job for job in jobs if state in (None, job.state)][:limit]

    @locked
    def count_by_state(self) -> Mapping[JobState, int]:
        states = [kept.job.state for kept in self._kept.values()]
        return {state: states.count(state) for state in JobState}

    @locked
    def request_cancel(self, project_id: str, job_id: str) -> FineTuningJob | None:
        kept = self._of_project(project_id, job_id)
        if kept is None:
            return None
        if kept.job.state not in FINAL_STATES:
            kept.change(cancel_requested=True)
            if kept.owner is None:
                kept.move(JobState.CANCELLED)
        return kept.job

    @locked
    def request_pause(self, project_id: str, job_id: str) -> FineTuningJob | None:
        kept = self._of_project(project_id, job_id)
        if kept is None:
            return None
        kept.change(state=after_pause(kept.job))
        return kept.job

    @locked
    def resume(self, project_id: str, job_id: str) -> FineTuningJob | None:
        kept = self._of_project(project_id, job_id)
        if kept is None:
            return None
        check_resume(kept.job.state)
        kept.move(JobState.QUEUED)
        return kept.job

    @locked
    def claim(
        self,
        owner: str,
        lease_seconds: float,
        job_id: str | None = None,
        *,
        queues: Sequence[str] | None = None,
        limits: ProjectLimits = NO_LIMITS,
    ) -> Claim | None:
        waiting = [kept for kept in self._kept.values() if kept.owner is None and kept.job.state in WAITING_STATES]
        if job_id is not None:
            waiting = [kept for kept in waiting if kept.job.id == job_id]
        else:
            waiting = [kept for kept in waiting if self._may_run(kept.job, queues, limits)]
        if not waiting:
            return None
        kept = min(waiting, key=self._place)
        if job_id is None:
            self._turns[kept.job.project_id] = 1 + max(self._turns.values(), default=0)
        if kept.job.state is JobState.QUEUED:
            kept.move(JobState.RUNNING)
            started = kept.job.started_at or datetime.now(UTC)
            kept.change(attempts=kept.job.attempts + 1, started_at=started)
        kept.owner, kept.fence, kept.heartbeat, kept.lease_seconds = owner, kept.fence + 1, 0, lease_seconds
        return Claim(kept.job, kept.fence, owner, lease_seconds)

    def _may_run(self, job: FineTuningJob, queues: Sequence[str] | None, limits: ProjectLimits) -> bool:
        if job.created_by is None or (queues is not None and job.queue not in queues):
            return False
        most = self._effective(job.project_id, limits).running
        if most is None or job.state is JobState.VALIDATING_FILES:
            return True
        return self._count(job.project_id, TRAINING_STATES) < most

    def _place(self, kept: _Kept) -> tuple[Any, ...]:
        job = kept.job
        held = [other for other in self._kept.values() if other.owner and other.job.project_id == job.project_id]
        of_project = (len(held), self._turns.get(job.project_id, 0), job.project_id)
        return (*of_project, WAITING_STATES.index(job.state), -job.priority, job.created_at, job.id)

    @locked
    def renew(self, job_id: str, fence: int) -> Order:
        kept = self._held(job_id, fence)
        kept.heartbeat += 1
        return order_for(kept.job.state, kept.job.cancel_requested)

    @locked
    def ingest(
        self,
        job_id: str,
        fence: int,
        events: Sequence[JobEvent],
        progress: Progress | None,
        *,
        said_in: int | None = None,
    ) -> None:
        kept = self._held(job_id, fence)
        claim = fence if said_in is None else said_in
        for event in sorted(events, key=lambda event: event.seq):
            kept.events.setdefault((claim, event.seq), replace(event, seq=len(kept.events) + 1))
        if progress is not None:
            kept.change(progress=progress)

    @locked
    def last_seq(self, job_id: str, fence: int) -> int:
        kept = self._kept.get(job_id)
        return max((seq for claim, seq in kept.events if claim == fence), default=0) if kept else 0

    @locked
    def set_run_folder(self, job_id: str, fence: int, run_folder: str) -> None:
        self._held(job_id, fence).change(run_folder=run_folder)

    @locked
    def move(self, job_id: str, fence: int, to: JobState, error: JobError | None = None) -> None:
        kept = self._held(job_id, fence)
        check_end(kept.job.state, to)
        if to is JobState.QUEUED and kept.job.cancel_requested:
            to = JobState.CANCELLED
        kept.let_go(to, error)

    @locked
    def give_back(self, job_id: str, fence: int) -> JobState:
        kept = self._held(job_id, fence)
        return kept.let_go(after_stop(kept.job))

    @locked
    def give_up(self, job_id: str, fence: int, error: JobError, max_attempts: int) -> JobState:
        return self._held(job_id, fence).lose(error, max_attempts, has_worker=True)

    @locked
    def succeed(
        self,
        job_id: str,
        fence: int,
        version: ModelVersion,
        metrics: Mapping[str, object],
        limits: ProjectLimits = NO_LIMITS,
    ) -> ModelVersion:
        kept = self._held(job_id, fence)
        if (version.project_id, version.job_id) != (kept.job.project_id, job_id):
            raise Conflict("a job publishes under its own id, in its own project")
        more = ProjectUse(storage_bytes=version.size, versions=1)
        self._check_quotas(version.project_id, limits, more)
        kept.move(JobState.SUCCEEDED)
        kept.change(model_version_id=version.id, metrics=dict(metrics))
        kept.owner = None
        return self._versions.publish(version)

    @locked
    def leases(self) -> Sequence[Lease]:
        held = [(job_id, kept) for job_id, kept in sorted(self._kept.items()) if kept.owner is not None]
        return [Lease(job_id, kept.fence, kept.heartbeat, kept.lease_seconds) for job_id, kept in held]

    @locked
    def release_lost(self, lease: Lease, max_attempts: int) -> JobState | None:
        kept = self._kept.get(lease.job_id)
        if kept is None or lease not in self.leases():
            return None
        return kept.lose(LOST_WORKER, max_attempts, has_worker=False)

    @locked
    def events(self, project_id: str, job_id: str, *, after: int = 0, limit: int = 100) -> Sequence[JobEvent]:
        kept = self._of_project(project_id, job_id)
        return [event for event in kept.events.values() if event.seq > after][:limit] if kept else []

    @locked
    def latest_events(
        self, project_id: str, job_id: str, *, before: int | None = None, limit: int = 100
    ) -> Sequence[JobEvent]:
        kept = self._of_project(project_id, job_id)
        events = reversed(kept.events.values()) if kept else ()
        return [event for event in events if before is None or event.seq < before][:limit]

    @locked
    def metrics(self, project_id: str, job_id: str, *, most: int) -> MetricCurve:
        kept = self._of_project(project_id, job_id)
        said: dict[int, list[MetricPoint]] = {}
        for (claim, _), event in kept.events.items() if kept else ():
            if (point := point_of(event)) is not None:
                said.setdefault(claim, []).append(point)
        steps = {claim: [point.first_step for point in points] for claim, points in said.items()}
        spans = surviving({claim: (min(found), max(found)) for claim, found in steps.items()})
        if not spans:
            return MetricCurve(1, [])
        counting = [p for span in spans for p in said[span.fence] if span.start <= p.first_step < span.end]
        width = width_for(spans[0].start, spans[-1].end - 1, most)
        return MetricCurve(width, reduced(counting, width))

    @locked
    def use(self, project_id: str) -> ProjectUse:
        versions = [version for version in self._versions.kept if version.project_id == project_id]
        published = sum(version.size for version in versions)
        return ProjectUse(
            running=self._count(project_id, TRAINING_STATES),
            queued=self._count(project_id, WAITING_STATES),
            storage_bytes=published + sum(self._datasets.sizes(project_id).values()),
            versions=len(versions),
        )

    @locked
    def limits(self, project_id: str) -> ProjectLimits | None:
        return self._limits.get(project_id)

    @locked
    def set_limits(self, project_id: str, limits: ProjectLimits) -> None:
        if project_id not in self._limits:
            raise no_project(project_id)
        self._limits[project_id] = limits

    def _effective(self, project_id: str, otherwise: ProjectLimits) -> ProjectLimits:
        return self._limits.get(project_id, NO_LIMITS).or_else(otherwise)

    def _check_quotas(self, project_id: str, limits: ProjectLimits, more: ProjectUse) -> None:
        check_quotas(self.use(project_id), self._effective(project_id, limits), more)

    def _count(self, project_id: str, states: Sequence[JobState]) -> int:
        return sum(k.job.project_id == project_id and k.job.state in states for k in self._kept.values())

    def _of_project(self, project_id: str, job_id: str) -> _Kept | None:
        kept = self._kept.get(job_id)
        return kept if kept and kept.job.project_id == project_id else None

    def _held(self, job_id: str, fence: int) -> _Kept:
        kept = self._kept.get(job_id)
        if kept is None or kept.owner is None or kept.fence != fence:
            raise stale(job_id)
        return kept
