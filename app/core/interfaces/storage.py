"""What keeps things. Each method is one transaction; none is held open between calls."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Literal

from app.core.entities.audit import AuditEntry, AuditFilter
from app.core.entities.dataset_versions import Dataset, DatasetSummary, DatasetVersion
from app.core.entities.jobs import (
    Claim,
    FineTuningJob,
    JobError,
    JobEvent,
    JobState,
    Lease,
    Order,
    Progress,
)
from app.core.entities.limits import NOTHING, ProjectLimits, ProjectUse
from app.core.entities.metrics import MetricCurve
from app.core.entities.models import ModelAlias, ModelSummary, ModelVersion
from app.core.entities.usage import Usage, UsageSum
from app.core.interfaces.job_kinds import Finished

NO_LIMITS = ProjectLimits()


class JobRepository(ABC):
    """Jobs, their attempts and events. The row is the truth; a message is a doorbell.

    Limits of a project stand in its row; where they are not set, the ``limits`` that a call brings hold.
    Methods that take a ``fence`` raise ``StaleAttempt`` when the job has been claimed anew, released or
    ended since, and change nothing.
    """

    @abstractmethod
    def add(
        self,
        jobs: Sequence[FineTuningJob],
        limits: ProjectLimits = NO_LIMITS,
        *,
        since: datetime | None = None,
        needs: ProjectUse = NOTHING,
    ) -> Sequence[FineTuningJob]:
        """Add jobs of one project, all or none; each may wait for those before it, and for others of the project.

        With ``since``, a job of the project with the ``request_key`` of the first that was added from then on, if
        the one or the other is of a retried request, is the answer: then nothing is added.

        ``NotFound`` (dataset_not_found, job_not_found) if what a job names has been deleted meanwhile;
        ``Conflict`` (dependency_failed) if a job to wait for has failed or was cancelled; ``TooMany``
        (too_many_jobs) where as many of its project's wait as may; ``Forbidden`` (quota_exceeded) where what the
        jobs are to make, ``needs`` at least, would have no room.
        """

    @abstractmethod
    def get(self, project_id: str, job_id: str) -> FineTuningJob | None: ...

    @abstractmethod
    def list(
        self,
        project_id: str,
        *,
        state: JobState | None = None,
        kind: str | None = None,
        metadata: Mapping[str, str] = {},
        limit: int = 20,
        after: str | None = None,
    ) -> Sequence[FineTuningJob]:
        """List a page of jobs, newest first; those alone whose request has all of ``metadata``.

        ``after`` is the id of the last job of the page before (``Invalid`` if there is none).
        """

    @abstractmethod
    def count_by_state(self) -> Mapping[JobState, int]:
        """Over all projects, for monitoring; every state is a key."""

    @abstractmethod
    def request_cancel(self, project_id: str, job_id: str) -> FineTuningJob | None:
        """Cancel a job no one holds at once, mark one that is held; a final one is left. None: no such job."""

    @abstractmethod
    def request_pause(self, project_id: str, job_id: str) -> FineTuningJob | None:
        """QUEUED is PAUSED at once, RUNNING is PAUSING; one that pauses or is paused is left. None: no such job.

        ``Conflict`` (invalid_transition) in any other state, and once its cancellation has been asked for.
        """

    @abstractmethod
    def resume(self, project_id: str, job_id: str) -> FineTuningJob | None:
        """PAUSED is QUEUED again; ``Conflict`` (invalid_transition) in any other state. None: no such job."""

    @abstractmethod
    def claim(
        self,
        owner: str,
        lease_seconds: float,
        job_id: str | None = None,
        *,
        queues: Sequence[str] | None = None,
        limits: ProjectLimits = NO_LIMITS,
        is_light: bool = False,
        kinds: Sequence[str] | None = None,
    ) -> Claim | None:
        """Take a job of a light or of a heavy kind, one of ``kinds``, that waits for no other, and is not held.

        Fair share first: of the projects that wait, the one with the fewest jobs held, then the one whose last
        turn is the longest ago. Within it what is to be validated, then by priority, then the oldest. No more of
        a project's heavy jobs run at once than its limit allows.

        A job in QUEUED moves to RUNNING and counts an attempt, one in VALIDATING_FILES keeps its state.
        The fence grows. Two callers never get the same job. ``queues`` narrows the choice to jobs of those,
        ``job_id`` to one job, whatever its queue and its project's limits; without it, jobs of the foreground
        (``created_by`` is None) are left to the command that submitted them.
        """

    @abstractmethod
    def renew(self, job_id: str, fence: int) -> Order:
        """Count one heartbeat; the answer is what has been asked for meanwhile."""

    @abstractmethod
    def ingest(
        self,
        job_id: str,
        fence: int,
        events: Sequence[JobEvent],
        progress: Progress | None,
        *,
        said_in: int | None = None,
    ) -> None:
        """Keep events, idempotently on (job, claim, seq), and the newest progress.

        ``said_in`` is the earlier claim whose trainer said them, None: this one. They are numbered as they come.
        """

    @abstractmethod
    def last_seq(self, job_id: str, fence: int) -> int:
        """Of the events kept of a claim; 0: none is."""

    @abstractmethod
    def set_run_folder(self, job_id: str, fence: int, run_folder: str) -> None: ...

    @abstractmethod
    def move(self, job_id: str, fence: int, to: JobState, error: JobError | None = None) -> None:
        """Make a move of TRANSITIONS and let go of the job. ``Conflict`` for a move that is not in the table.

        To QUEUED becomes CANCELLED where that was asked for: nobody would claim it again.
        """

    @abstractmethod
    def give_back(self, job_id: str, fence: int) -> JobState:
        """Let go of a job whose attempt was stopped, as somebody asked or because its worker drains.

        CANCELLED or PAUSED where that was asked for, else RUNNING is QUEUED; VALIDATING_FILES stays.
        """

    @abstractmethod
    def give_up(self, job_id: str, fence: int, error: JobError, max_attempts: int) -> JobState:
        """Let go of a job whose trainer was lost, as ``give_back``; FAILED (poisoned) after ``max_attempts``.

        ``error`` says how it was lost, and is part of the last word.
        """

    @abstractmethod
    def bind(self, job: FineTuningJob, fence: int) -> None:
        """Write what a chain's job turned out to be: name, config, base model, dataset; it has no inputs then.

        ``NotFound`` (dataset_not_found).
        """

    @abstractmethod
    def succeed(
        self, job_id: str, fence: int, finished: Finished, limits: ProjectLimits = NO_LIMITS
    ) -> Sequence[str]:
        """SUCCEEDED and the versions that the job made, in one transaction; their references are the answer.

        ``Forbidden`` (quota_exceeded), and nothing is changed, where the project has no room for them.
        """

    @abstractmethod
    def has_succeeded(self, job_id: str, fence: int) -> bool:
        """Whether the claim with this fence ended the job so."""

    @abstractmethod
    def forget(self, kind: str, before: datetime, most: int = 100) -> Sequence[str]:
        """Remove jobs of a kind that ended before then, with their events, unless another waits for them.

        Return the ids of those that are gone, ``most`` of them at once.
        """

    @abstractmethod
    def leases(self) -> Sequence[Lease]:
        """Every job that is held now."""

    @abstractmethod
    def release_lost(self, lease: Lease, max_attempts: int) -> JobState | None:
        """Take a job from an owner whose heartbeat is still ``lease.heartbeat``: None if it moved since.

        Then as ``give_up``; but a job of the foreground has no other worker: FAILED (``interrupted``).
        """

    @abstractmethod
    def use(self, project_id: str) -> ProjectUse:
        """What it has of what is limited."""

    @abstractmethod
    def limits(self, project_id: str) -> ProjectLimits | None:
        """Those set for the project; None: no such project."""

    @abstractmethod
    def set_limits(self, project_id: str, limits: ProjectLimits) -> None:
        """``NotFound`` (project_not_found)."""

    @abstractmethod
    def events(self, project_id: str, job_id: str, *, after: int = 0, limit: int = 100) -> Sequence[JobEvent]:
        """In order, ``seq`` numbered over the job's whole life; ``after`` is the last number seen."""

    @abstractmethod
    def latest_events(
        self, project_id: str, job_id: str, *, before: int | None = None, limit: int = 100
    ) -> Sequence[JobEvent]:
        """Newest first, numbered as ``events``; ``before`` is the last number seen."""

    @abstractmethod
    def metrics(self, project_id: str, job_id: str, *, most: int) -> MetricCurve:
        """What metrics events measured, in ``most`` points at most; none: nothing, or no such job.

        A claim's events from the first step of a later claim on do not count.
        """


class ModelVersionRepository(ABC):
    """Published versions, which are added by ``JobRepository.succeed``, and aliases, which move.

    Of a version nothing changes but whether it is pinned. Of one that was deleted nothing is found any more; its
    number stays taken, for a reference names one version for good.
    """

    @abstractmethod
    def get(self, project_id: str, version_id: str) -> ModelVersion | None: ...

    @abstractmethod
    def find(self, project_id: str, name: str, number: int | None = None) -> ModelVersion | None:
        """The version of that number, or the newest. Not for references: ``ModelResolver`` is."""

    @abstractmethod
    def pin(self, project_id: str, version_id: str, pinned: bool) -> None:
        """Set or take away the mark; where there is no such version, nothing."""

    @abstractmethod
    def delete(self, project_id: str, version_id: str) -> bool:
        """Whether there was one. ``Conflict`` (version_has_alias) while an alias carries it."""

    @abstractmethod
    def alias(self, project_id: str, model: str, alias: str) -> ModelAlias | None: ...

    @abstractmethod
    def aliases(self, project_id: str, model: str) -> Sequence[ModelAlias]:
        """By name; empty if there is no such model."""

    @abstractmethod
    def set_alias(self, alias: ModelAlias) -> None:
        """In the place of what it stood for. ``NotFound`` (model_not_found) if a version of its is not there."""

    @abstractmethod
    def remove_alias(self, project_id: str, model: str, alias: str) -> bool:
        """Whether there was one."""

    @abstractmethod
    def models(self, project_id: str) -> Sequence[ModelSummary]:
        """By name."""

    @abstractmethod
    def versions(self, project_id: str, name: str) -> Sequence[ModelVersion]:
        """Newest first; empty if there is no such model."""


class DatasetRepository(ABC):
    """Datasets, their versions, which never change, and tags, which move."""

    @abstractmethod
    def add(self, dataset: Dataset, version: DatasetVersion, limits: ProjectLimits = NO_LIMITS) -> DatasetVersion:
        """With its first version. ``Conflict`` (dataset_name_taken), ``Forbidden`` (quota_exceeded)."""

    @abstractmethod
    def add_version(self, version: DatasetVersion, limits: ProjectLimits = NO_LIMITS) -> DatasetVersion:
        """The answer carries the next number. ``NotFound`` (dataset_not_found) if the dataset is gone,
        ``Forbidden`` (quota_exceeded)."""

    @abstractmethod
    def get(self, project_id: str, dataset_id: str) -> DatasetSummary | None: ...

    @abstractmethod
    def list(
        self, project_id: str, *, limit: int = 20, after: str | None = None, oldest_first: bool = False
    ) -> Sequence[DatasetSummary]:
        """Newest first, or oldest; ``after`` is the id of the last one of the page before (``Invalid``: none)."""

    @abstractmethod
    def versions(self, project_id: str, dataset_id: str) -> Sequence[DatasetVersion]:
        """Newest first; empty if there is no such dataset."""

    @abstractmethod
    def version(
        self, project_id: str, dataset_id: str, number: int | None = None, tag: str | None = None
    ) -> DatasetVersion | None:
        """The version of that number, or that the tag names, or the newest."""

    @abstractmethod
    def tag(self, project_id: str, dataset_id: str, tag: str, number: int | None) -> bool:
        """Have the tag name a version, or with None nothing; whether there is that version, or was that tag."""

    @abstractmethod
    def delete(self, project_id: str, dataset_id: str) -> Sequence[str] | None:
        """Remove it with all versions and tags; the answer is the digests that they had.

        None if there is none. ``Conflict`` (dataset_in_use) while a job refers to it, or through one a model
        version.
        """

    @abstractmethod
    def is_kept(self, digest: str) -> bool:
        """Whether a version of any project has it."""


class UsageRepository(ABC):
    """One row a request; they are added and summed up."""

    @abstractmethod
    def add(self, rows: Sequence[Usage]) -> None:
        """All of them or none; at least one."""

    @abstractmethod
    def sums(
        self,
        project_id: str,
        by: Literal["model", "day"],
        first: date,
        last: date,
        model: str | None = None,
    ) -> Sequence[UsageSum]:
        """Of the days from ``first`` to ``last``, in any order; ``model`` alone, if it is named."""


class AuditRepository(ABC):
    """Entries are added and read; none is changed or removed."""

    @abstractmethod
    def add(self, entry: AuditEntry) -> None:
        """Under the next number, whatever its own says."""

    @abstractmethod
    def page(
        self, project_id: str | None, wanted: AuditFilter, limit: int, after: int | None = None
    ) -> Sequence[AuditEntry]:
        """Those below the number ``after``, the highest first. Of the project; None: of all and of none."""


class DatabaseHealth(ABC):
    """Whether the database answers and its schema is this code's."""

    @abstractmethod
    def check(self) -> str | None:
        """None when well, else one line that says what to do."""
