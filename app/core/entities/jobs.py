"""Jobs of every kind: their states, the moves between them and the rules of those, attempts and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from app.core.entities.identity import Principal, Role
from app.core.entities.limits import ProjectLimits
from app.core.errors import Conflict, Fault, StaleAttempt, TooMany


class JobState(StrEnum):
    VALIDATING_FILES = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


# The one table of moves. RUNNING → QUEUED is a lost lease, a lost trainer or a drained worker; a job that was to
# pause is PAUSED then, as its user asked.
TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.VALIDATING_FILES: frozenset({JobState.QUEUED, JobState.FAILED, JobState.CANCELLED}),
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.PAUSED, JobState.CANCELLED}),
    JobState.RUNNING: frozenset(
        {JobState.PAUSING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.QUEUED}
    ),
    JobState.PAUSING: frozenset(
        {JobState.PAUSED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.QUEUED}
    ),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}
FINAL_STATES = frozenset(state for state, following in TRANSITIONS.items() if not following)
WAITING_STATES = (JobState.VALIDATING_FILES, JobState.QUEUED)  # in the order in which they are claimed
RUNNING_STATES = (JobState.RUNNING, JobState.PAUSING)

DEFAULT_QUEUE = "default"
PRIORITIES = range(-10, 11)


class Order(StrEnum):
    """What is wished of an attempt, as its heartbeat learns it from the row."""

    GO_ON = "go_on"
    PAUSE = "pause"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed, or was cancelled by another's end. ``code``: invalid_data, out_of_memory, poisoned …"""

    code: str
    message: str
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """The newest figures of a job. ``eta_seconds`` is an estimate; ``loss`` is the mean over the last step."""

    step: int = 0
    total_steps: int | None = None
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class FineTuningJob:
    """One request for work. ``config`` is what its kind does with it; times are timezone-aware UTC."""

    id: str
    project_id: str
    kind: str  # a name of a JobKind: train, estimate …
    name: str
    state: JobState
    config: Mapping[str, Any]
    created_by: str | None
    created_at: datetime
    base_model: str = ""  # of kinds that work with one
    dataset_digest: str = ""  # of the rows that it reads, as they were when the job was submitted
    dataset_id: str | None = None  # with ``dataset_number`` the version that it reads; None: a file, or nothing
    dataset_number: int | None = None
    is_light: bool = False  # claimed by the light slots of workers, and not counted with the others
    after: Sequence[str] = field(default_factory=list)  # ids of jobs that must succeed before this one is claimed
    inputs: Mapping[str, str] = field(default_factory=dict)  # key of its request → id of the job that makes it
    started_at: datetime | None = None
    finished_at: datetime | None = None
    run_folder: str | None = None  # name below the kind's folder, or an absolute path in the foreground
    progress: Progress = field(default_factory=Progress)
    error: JobError | None = None
    model_version_id: str | None = None
    cancel_requested: bool = False
    attempts: int = 0  # claims that ran it
    lost: int = 0  # claims whose worker or child process was lost
    priority: int = 0  # of PRIORITIES; the higher, the sooner among its project's
    queue: str = DEFAULT_QUEUE  # the workers that serve it may take it
    retry_of: str | None = None
    result: Mapping[str, Any] = field(default_factory=dict)  # what the kind says of a job that has succeeded
    made: Sequence[str] = field(default_factory=list)  # references of what it published: support:3, ds-…:2
    request: Mapping[str, Any] = field(default_factory=dict)  # what OpenAI's dialect shows again: files, metadata
    request_key: str | None = None  # the same for the same request of the same caller
    is_retry: bool = False  # of a request that its client had sent before

    @property
    def asker(self) -> Principal:
        """Return who submitted it, as services ask for one: the host for a command in the foreground.

        The role was asked for when the job was submitted: what a worker checks again is not refused for it.
        """
        if self.created_by is None:
            return Principal.host(self.project_id)
        return Principal(self.created_by, "", self.project_id, Role.OPERATOR)


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt's hold on a job. ``fence`` grows with each claim; a write with an old one is refused."""

    job: FineTuningJob
    fence: int
    owner: str
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class Lease:
    """What the reaper watches: a heartbeat unchanged for a lease and a margin means the owner is lost."""

    job_id: str
    fence: int
    heartbeat: int
    lease_seconds: float


@dataclass(frozen=True, slots=True)
class JobEvent:
    """A line of a child process' events.ndjson. ``seq`` counts from 1 within an attempt."""

    seq: int
    type: str  # "message" | "metrics"
    level: str  # "info" | "warn" | "error"
    message: str
    created_at: datetime
    data: Mapping[str, Any] = field(default_factory=dict)


LOST_WORKER = JobError("worker_lost", "its worker was not heard of for a lease")
RETRY_SECONDS = 60  # after which a full queue may have room


def check_move(state: JobState, to: JobState) -> None:
    if to not in TRANSITIONS[state]:
        raise Conflict(f"a job that is {state} cannot become {to}", code="invalid_transition")


def check_end(state: JobState, to: JobState) -> None:
    """Refuse a move that lets go of a job and leaves it in a state that somebody must hold."""
    check_move(state, to)
    if to in RUNNING_STATES:
        raise Conflict(f"a job that is {to} is held by somebody", code="invalid_transition")


def stale(job_id: str) -> StaleAttempt:
    return StaleAttempt(f"this attempt no longer holds job {job_id}")


def check_room(waiting: int, limits: ProjectLimits) -> None:
    """``waiting``: jobs of the project in WAITING_STATES, without the one to come."""
    if limits.queued is not None and waiting >= limits.queued:
        message = f"{waiting} jobs of this project wait already, as many as may: wait for one, or cancel one"
        raise TooMany(message, code="too_many_jobs", retry_after=RETRY_SECONDS)


def order_for(state: JobState, cancel_requested: bool) -> Order:
    if cancel_requested:
        return Order.CANCEL
    return Order.PAUSE if state is JobState.PAUSING else Order.GO_ON


def after_pause(job: FineTuningJob) -> JobState:
    """The state of a job that is asked to pause."""
    if job.state in (JobState.PAUSING, JobState.PAUSED):
        return job.state
    to = JobState.PAUSED if job.state is JobState.QUEUED else JobState.PAUSING
    if job.cancel_requested and job.state not in FINAL_STATES:
        raise Conflict("this job is being cancelled", code="invalid_transition")
    check_move(job.state, to)
    return to


def check_resume(state: JobState) -> None:
    if state is not JobState.PAUSED:
        raise Conflict(f"a job that is {state} cannot become queued", code="invalid_transition")


def after_stop(job: FineTuningJob) -> JobState:
    """The state of a job whose attempt was stopped."""
    if job.cancel_requested:
        return JobState.CANCELLED
    if job.state is JobState.PAUSING:
        return JobState.PAUSED
    return JobState.QUEUED if job.state is JobState.RUNNING else job.state


def after_loss(
    job: FineTuningJob, error: JobError, max_attempts: int, *, has_worker: bool
) -> tuple[JobState, JobError | None]:
    """The state of a job whose attempt was lost, and why it failed if it did. ``job.lost`` counts this loss."""
    if not job.cancel_requested:
        if job.created_by is None and not has_worker:
            message = "the command that trained it in the foreground ended; start it again"
            return JobState.FAILED, JobError("interrupted", message)
        if job.lost >= max_attempts:
            message = f"lost in each of {job.lost} attempts, and not tried again; the last: {error.message}"
            return JobState.FAILED, JobError("poisoned", message)
    return after_stop(job), None


@dataclass(frozen=True, slots=True)
class JobPage:
    """``next`` is the ``after`` of the page that follows, None on the last."""

    jobs: Sequence[FineTuningJob]
    next: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """One job of a chain. A value ``$name`` in its request stands for what the step of that name makes."""

    name: str
    kind: str
    request: Mapping[str, Any]
    after: Sequence[str] = ()  # names of steps before it, beside those that its request names


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """``checkpoints`` is the folder of the job that wrote the run's newest whole checkpoint."""

    folder: Path
    checkpoints: Path
    job_id: str
    has_artifacts: bool  # of that job: it came to its end, if not to its publishing
