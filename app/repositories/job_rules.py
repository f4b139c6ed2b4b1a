"""What every job repository decides, and refuses, in the same words."""

from app.core.entities.jobs import (
    FINAL_STATES,
    TRAINING_STATES,
    TRANSITIONS,
    FineTuningJob,
    JobError,
    JobState,
    Order,
)
from app.core.entities.limits import ProjectLimits
from app.core.errors import Conflict, Fault, Invalid, StaleAttempt, TooMany

LOST_WORKER = JobError("worker_lost", "its worker was not heard of for a lease")
RETRY_SECONDS = 60  # after which a full queue may have room


def check_move(state: JobState, to: JobState) -> None:
    if to not in TRANSITIONS[state]:
        raise Conflict(f"a job that is {state} cannot become {to}", code="invalid_transition")


def check_end(state: JobState, to: JobState) -> None:
    """Of a move that lets go of the job: it must not leave it to train on without anybody."""
    check_move(state, to)
    if to in TRAINING_STATES:
        raise Conflict(f"a job that is {to} is held by somebody", code="invalid_transition")


def stale(job_id: str) -> StaleAttempt:
    return StaleAttempt(f"this attempt no longer holds job {job_id}")


def unknown_page(after: str) -> Invalid:
    fault = Fault("after", "unknown_job", "must be the id of the last job of the page before")
    return Invalid("no such page of jobs", faults=[fault])


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
