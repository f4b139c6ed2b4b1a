"""In-memory twins of the repositories, for tests and demonstrations. Safe among threads; lost at the end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import wraps
from threading import RLock
from typing import Any, TypeVar, cast

from app.core.entities.dataset_versions import Dataset, DatasetSummary, DatasetVersion
from app.core.entities.identity import DEFAULT_PROJECT_ID, Membership, Role, User
from app.core.entities.jobs import (
    FINAL_STATES,
    Claim,
    FineTuningJob,
    JobError,
    JobEvent,
    JobState,
    Lease,
    Progress,
)
from app.core.entities.models import ModelSummary, ModelVersion
from app.core.errors import Conflict, NotFound
from app.core.interfaces.storage import (
    DatasetRepository,
    JobRepository,
    ModelVersionRepository,
    UserRepository,
)
from app.repositories import dataset_rules
from app.repositories.job_rules import check_move, lost_for_good, stale, unknown_page

Method = TypeVar("Method", bound=Callable[..., Any])
_lock = RLock()  # one for all: a job that succeeds writes a version


def _locked(method: Method) -> Method:
    @wraps(method)
    def locked(*args: Any, **kwargs: Any) -> Any:
        with _lock:
            return method(*args, **kwargs)

    return cast(Method, locked)


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


class MemoryModelVersionRepository(ModelVersionRepository):
    def __init__(self) -> None:
        self.kept: list[ModelVersion] = []

    @_locked
    def publish(self, version: ModelVersion) -> ModelVersion:
        number = len(self.versions(version.project_id, version.name)) + 1
        self.kept.append(replace(version, number=number))
        return self.kept[-1]

    def get(self, project_id: str, version_id: str) -> ModelVersion | None:
        return next((v for v in self.kept if (v.project_id, v.id) == (project_id, version_id)), None)

    def find(self, project_id: str, name: str, number: int | None = None) -> ModelVersion | None:
        found = self.versions(project_id, name)
        return next((v for v in found if number in (None, v.number)), None)

    def models(self, project_id: str) -> Sequence[ModelSummary]:
        names = sorted({v.name for v in self.kept if v.project_id == project_id})
        of_each = [self.versions(project_id, name) for name in names]
        return [
            ModelSummary(v[0].name, v[0].base_model, len(v), v[0].number, v[0].created_at, v[0].metrics)
            for v in of_each
        ]

    def versions(self, project_id: str, name: str) -> Sequence[ModelVersion]:
        return [v for v in reversed(self.kept) if (v.project_id, v.name) == (project_id, name)]


@dataclass
class _KeptDataset:
    dataset: Dataset
    versions: list[DatasetVersion]  # oldest first
    tags: dict[str, int] = field(default_factory=dict)

    @property
    def summary(self) -> DatasetSummary:
        return DatasetSummary(self.dataset, self.versions[-1], dict(sorted(self.tags.items())))


class MemoryDatasetRepository(DatasetRepository):
    def __init__(self) -> None:
        self._kept: dict[str, _KeptDataset] = {}
        self._in_use: set[str] = set()  # by jobs

    @_locked
    def add(self, dataset: Dataset, version: DatasetVersion) -> DatasetVersion:
        taken = {(kept.dataset.project_id, kept.dataset.name) for kept in self._kept.values()}
        if (dataset.project_id, dataset.name) in taken:
            raise dataset_rules.name_taken(dataset.name)
        self._kept[dataset.id] = _KeptDataset(dataset, [replace(version, number=1)])
        return self._kept[dataset.id].versions[0]

    @_locked
    def add_version(self, version: DatasetVersion) -> DatasetVersion:
        kept = self._of_project(version.project_id, version.dataset_id)
        if kept is None:
            raise dataset_rules.no_dataset(version.dataset_id)
        kept.versions.append(replace(version, number=len(kept.versions) + 1))
        return kept.versions[-1]

    @_locked
    def get(self, project_id: str, dataset_id: str) -> DatasetSummary | None:
        kept = self._of_project(project_id, dataset_id)
        return kept.summary if kept else None

    @_locked
    def list(self, project_id: str, *, limit: int = 20, after: str | None = None) -> Sequence[DatasetSummary]:
        found = [kept for kept in self._kept.values() if kept.dataset.project_id == project_id]
        found.sort(key=lambda kept: (kept.dataset.created_at, kept.dataset.id), reverse=True)
        if after is not None:
            places = [place for place, kept in enumerate(found) if kept.dataset.id == after]
            if not places:
                raise dataset_rules.unknown_page(after)
            found = found[places[0] + 1 :]
        return [kept.summary for kept in found[:limit]]

    @_locked
    def versions(self, project_id: str, dataset_id: str) -> Sequence[DatasetVersion]:
        kept = self._of_project(project_id, dataset_id)
        return kept.versions[::-1] if kept else []

    @_locked
    def version(
        self, project_id: str, dataset_id: str, number: int | None = None, tag: str | None = None
    ) -> DatasetVersion | None:
        kept = self._of_project(project_id, dataset_id)
        if kept is None:
            return None
        wanted = number if tag is None else kept.tags.get(tag, 0)
        return next((v for v in reversed(kept.versions) if wanted in (None, v.number)), None)

    @_locked
    def tag(self, project_id: str, dataset_id: str, tag: str, number: int | None) -> bool:
        kept = self._of_project(project_id, dataset_id)
        if kept is None:
            return False
        if number is None:
            return kept.tags.pop(tag, None) is not None
        if number > len(kept.versions):
            return False
        kept.tags[tag] = number
        return True

    @_locked
    def delete(self, project_id: str, dataset_id: str) -> Sequence[str] | None:
        kept = self._of_project(project_id, dataset_id)
        if kept is None:
            return None
        if dataset_id in self._in_use:
            raise dataset_rules.in_use(dataset_id)
        del self._kept[dataset_id]
        return sorted({version.digest for version in kept.versions})

    @_locked
    def is_kept(self, digest: str) -> bool:
        return any(version.digest == digest for kept in self._kept.values() for version in kept.versions)

    def refer(self, project_id: str, dataset_id: str) -> None:
        """A job does, from now on."""
        if self._of_project(project_id, dataset_id) is None:
            raise dataset_rules.no_dataset(dataset_id)
        self._in_use.add(dataset_id)

    def _of_project(self, project_id: str, dataset_id: str) -> _KeptDataset | None:
        kept = self._kept.get(dataset_id)
        return kept if kept and kept.dataset.project_id == project_id else None


class MemoryJobRepository(JobRepository):
    def __init__(
        self,
        versions: MemoryModelVersionRepository | None = None,
        datasets: MemoryDatasetRepository | None = None,
    ) -> None:
        self._kept: dict[str, _Kept] = {}
        self._versions = versions or MemoryModelVersionRepository()
        self._datasets = datasets or MemoryDatasetRepository()

    @_locked
    def add(self, job: FineTuningJob) -> None:
        if job.dataset_id is not None:
            self._datasets.refer(job.project_id, job.dataset_id)
        self._kept[job.id] = _Kept(job)

    @_locked
    def get(self, project_id: str, job_id: str) -> FineTuningJob | None:
        kept = self._of_project(project_id, job_id)
        return kept.job if kept else None

    @_locked
    def list(
        self, project_id: str, *, state: JobState | None = None, limit: int = 20, after: str | None = None
    ) -> Sequence[FineTuningJob]:
        jobs = [kept.job for kept in self._kept.values() if kept.job.project_id == project_id]
        jobs.sort(key=lambda job: (job.created_at, job.id), reverse=True)
        if after is not None:
            places = [place for place, job in enumerate(jobs) if job.id == after]
            if not places:
                raise unknown_page(after)
            jobs = jobs[places[0] + 1 :]
        return [job for job in jobs if state in (None, job.state)][:limit]

    @_locked
    def count_by_state(self) -> Mapping[JobState, int]:
        states = [kept.job.state for kept in self._kept.values()]
        return {state: states.count(state) for state in JobState}

    @_locked
    def request_cancel(self, project_id: str, job_id: str) -> FineTuningJob | None:
        kept = self._of_project(project_id, job_id)
        if kept is None:
            return None
        if kept.job.state not in FINAL_STATES:
            kept.change(cancel_requested=True)
            if kept.owner is None:
                kept.move(JobState.CANCELLED)
        return kept.job

    @_locked
    def claim(self, owner: str, lease_seconds: float, job_id: str | None = None) -> Claim | None:
        waiting = [
            kept
            for kept in self._kept.values()
            if kept.owner is None
            and kept.job.state in (JobState.VALIDATING_FILES, JobState.QUEUED)
            and (kept.job.created_by is not None if job_id is None else job_id == kept.job.id)
        ]
        if not waiting:
            return None
        kept = min(waiting, key=lambda kept: (kept.job.created_at, kept.job.id))
        if kept.job.state is JobState.QUEUED:
            kept.move(JobState.RUNNING)
            started = kept.job.started_at or datetime.now(UTC)
            kept.change(attempts=kept.job.attempts + 1, started_at=started)
        kept.owner, kept.fence, kept.heartbeat, kept.lease_seconds = owner, kept.fence + 1, 0, lease_seconds
        return Claim(kept.job, kept.fence, owner, lease_seconds)

    @_locked
    def renew(self, job_id: str, fence: int) -> bool:
        kept = self._held(job_id, fence)
        kept.heartbeat += 1
        return kept.job.cancel_requested

    @_locked
    def ingest(self, job_id: str, fence: int, events: Sequence[JobEvent], progress: Progress | None) -> None:
        kept = self._held(job_id, fence)
        for event in sorted(events, key=lambda event: event.seq):
            kept.events.setdefault((fence, event.seq), replace(event, seq=len(kept.events) + 1))
        if progress is not None:
            kept.change(progress=progress)

    @_locked
    def set_run_folder(self, job_id: str, fence: int, run_folder: str) -> None:
        self._held(job_id, fence).change(run_folder=run_folder)

    @_locked
    def move(self, job_id: str, fence: int, to: JobState, error: JobError | None = None) -> None:
        kept = self._held(job_id, fence)
        kept.move(to)
        if to is JobState.QUEUED and kept.job.cancel_requested:
            kept.move(JobState.CANCELLED)
        kept.change(error=error)
        kept.owner = None

    @_locked
    def succeed(
        self, job_id: str, fence: int, version: ModelVersion, metrics: Mapping[str, object]
    ) -> ModelVersion:
        kept = self._held(job_id, fence)
        if (version.project_id, version.job_id) != (kept.job.project_id, job_id):
            raise Conflict("a job publishes under its own id, in its own project")
        kept.move(JobState.SUCCEEDED)
        kept.change(model_version_id=version.id, metrics=dict(metrics))
        kept.owner = None
        return self._versions.publish(version)

    @_locked
    def leases(self) -> Sequence[Lease]:
        held = [(job_id, kept) for job_id, kept in sorted(self._kept.items()) if kept.owner is not None]
        return [Lease(job_id, kept.fence, kept.heartbeat, kept.lease_seconds) for job_id, kept in held]

    @_locked
    def release_lost(self, lease: Lease, max_attempts: int) -> JobState | None:
        kept = self._kept.get(lease.job_id)
        if kept is None or lease not in self.leases():
            return None
        kept.owner = None
        if kept.job.cancel_requested:
            kept.move(JobState.CANCELLED)
        elif error := lost_for_good(kept.job.state, kept.job.created_by, kept.job.attempts, max_attempts):
            kept.move(JobState.FAILED)
            kept.change(error=error)
        elif kept.job.state is JobState.RUNNING:
            kept.move(JobState.QUEUED)
        return kept.job.state

    @_locked
    def events(self, project_id: str, job_id: str, *, after: int = 0, limit: int = 100) -> Sequence[JobEvent]:
        kept = self._of_project(project_id, job_id)
        return [event for event in kept.events.values() if event.seq > after][:limit] if kept else []

    def _of_project(self, project_id: str, job_id: str) -> _Kept | None:
        kept = self._kept.get(job_id)
        return kept if kept and kept.job.project_id == project_id else None

    def _held(self, job_id: str, fence: int) -> _Kept:
        kept = self._kept.get(job_id)
        if kept is None or kept.owner is None or kept.fence != fence:
            raise stale(job_id)
        return kept


class MemoryUserRepository(UserRepository):
    def __init__(self, projects: Sequence[str] = (DEFAULT_PROJECT_ID,)) -> None:
        self._projects = projects
        self._users: dict[str, User] = {}
        self._memberships: list[Membership] = []

    @_locked
    def add(self, user: User, project_id: str, role: Role) -> None:
        if project_id not in self._projects:
            raise NotFound(f"there is no project {project_id}")
        if user.username in self._users:
            raise Conflict(f"the username {user.username} is taken", code="username_taken")
        self._users[user.username] = user
        self._memberships.append(Membership(user.id, project_id, role))

    def by_username(self, username: str) -> User | None:
        return self._users.get(username)

    @_locked
    def memberships(self, user_id: str) -> Sequence[Membership]:
        return [membership for membership in self._memberships if membership.user_id == user_id]

    @_locked
    def list(self) -> Sequence[User]:
        return [user for _, user in sorted(self._users.items())]

    def any(self) -> bool:
        return bool(self._users)
