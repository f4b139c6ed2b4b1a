"""What every job repository refuses, in the same words."""

from app.core.entities.jobs import TRANSITIONS, JobError, JobState
from app.core.errors import Conflict, Fault, Invalid, StaleAttempt


def check_move(state: JobState, to: JobState) -> None:
    if to not in TRANSITIONS[state]:
        raise Conflict(f"a job that is {state} cannot become {to}", code="invalid_transition")


def stale(job_id: str) -> StaleAttempt:
    return StaleAttempt(f"this attempt no longer holds job {job_id}")


def unknown_page(after: str) -> Invalid:
    fault = Fault("after", "unknown_job", "must be the id of the last job of the page before")
    return Invalid("no such page of jobs", faults=[fault])


def lost_for_good(state: JobState, created_by: str | None, attempts: int, max_attempts: int) -> JobError | None:
    """Why a job whose owner is lost is not left for another one; None if it is."""
    if created_by is None:
        return JobError("interrupted", "the command that trained it in the foreground ended; start it again")
    if state is JobState.RUNNING and attempts >= max_attempts:
        return JobError("poisoned", f"its worker was lost in each of {attempts} attempts; it is not tried again")
    return None
