"""One attempt at a job: a child process and what becomes of it."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

from app.core.entities.forecasts import Shortage
from app.core.entities.jobs import Claim, JobError, JobEvent, JobState, Order, Progress
from app.core.entities.limits import ProjectLimits
from app.core.errors import AppError, StaleAttempt
from app.core.interfaces.job_kinds import Finished, JobKind, Task
from app.core.interfaces.operations import TrainerHandle, TrainerLauncher, TrainerOutcome
from app.core.interfaces.storage import JobRepository
from app.core.services.jobs.heartbeat import Heartbeat
from app.core.services.jobs.room import RUN_FOLDER, needs_room
from app.core.services.jobs.run_folders import new_folder

CANCEL_SECONDS = 3.0  # for a trainer to stop at its next step; then it is killed
BATCH_SECONDS = 0.1  # events that come closer together are written in one transaction
PROGRESS_FIELDS = frozenset(field.name for field in fields(Progress))

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How a worker treats its children: seconds between two looks, for a drained one to end, tries at a job."""

    poll_seconds: float
    drain_seconds: float
    max_attempts: int


class Attempt:
    """Follows one child process. ``draining`` set means: stop it and leave the job to another worker.

    A child that is to stop leaves a checkpoint first, if its kind can. To pause it has as long as it needs, to
    drain ``drain_seconds``.
    """

    def __init__(
        self,
        jobs: JobRepository,
        launcher: TrainerLauncher,
        kind: JobKind,
        claim: Claim,
        heartbeat: Heartbeat,
        draining: threading.Event,
        pace: Pace,
        limits: ProjectLimits,
        on_event: Callable[[JobEvent], None] | None,
    ) -> None:
        self._jobs = jobs
        self._launcher = launcher
        self._kind = kind
        self._job = claim.job
        self._fence = claim.fence
        self._heartbeat = heartbeat
        self._draining = draining
        self._pace = pace
        self._limits = limits
        self._on_event = on_event
        self._progress = Progress()
        self._is_late = False
        self._last_seen: Shortage | None = None  # of memory, if it is the system that ends the child

    def run(self, task: Task) -> None:
        """Carry the job to the row's last word. ``StaleAttempt`` if it was lost on the way; no child is left."""
        self._take_up_events(task.folder)
        outcome = self._run_child(task)
        log.info("job %s: the child of claim %d %s", self._job.id, self._fence, outcome.kind)
        if outcome.kind == "succeeded":
            result = outcome.result or {}
            with self._kind.taking_up(self._job, self._fence, result, task.folder) as finished:
                self.succeed(finished)
            return
        outcome = self._kind.explain(outcome, task.job_file, self._last_seen)
        state = self._heartbeat.persist(lambda: self._end(outcome))
        log.info("job %s: now %s", self._job.id, state)

    def succeed(self, finished: Finished) -> None:
        """End the row, with what the job made. Raises what the repository refuses."""
        succeed = partial(self._jobs.succeed, self._job.id, self._fence, finished, self._limits)
        try:
            self._heartbeat.persist(succeed)
        except AppError:
            # The answer to a commit may be lost, and the try after it refused: then the row says so.
            has_succeeded = partial(self._jobs.has_succeeded, self._job.id, self._fence)
            if not self._heartbeat.persist(has_succeeded):
                raise

    def _take_up_events(self, run_folder: Path) -> None:
        """Events that an earlier attempt could not hand in: its lease ended while the database was away."""

        def last_kept(claim: int) -> int:
            return self._heartbeat.persist(lambda: self._jobs.last_seq(self._job.id, claim))

        for claim, events in self._launcher.earlier_events(run_folder, self._job.id, self._fence, last_kept):
            ingest = partial(self._jobs.ingest, self._job.id, self._fence, events, None, said_in=claim)
            self._heartbeat.persist(ingest)

    def _run_child(self, task: Task) -> TrainerOutcome:
        with needs_room(RUN_FOLDER):
            folder = new_folder(task.folder / "attempts", str(self._fence))
            handle = self._launcher.start(task.job_file, folder, self._heartbeat.deadline)
        try:
            self._heartbeat.vouch_for(handle)
            self._follow(handle)
        finally:
            self._heartbeat.vouch_for(None)
            handle.kill()  # the processes that a child leaves behind, or itself if we walk away
        if self._is_late:
            message = f"it was not done within the {self._kind.seconds:.0f} s that it may take"
            return TrainerOutcome("failed", "time_limit", message)
        return handle.outcome()

    def _follow(self, handle: TrainerHandle) -> None:
        kill_at: float | None = None
        late_at = None if self._kind.seconds is None else time.monotonic() + self._kind.seconds
        told = False
        while not handle.wait(self._pace.poll_seconds):
            self._ingest(handle)
            if self._heartbeat.lost:
                raise StaleAttempt(f"attempt {self._fence} no longer holds job {self._job.id}")
            if not told and self._is_to_stop():
                handle.stop()
                told = True
            if kill_at is None and (patience := self._patience()) is not None:
                kill_at = time.monotonic() + patience
            self._is_late = late_at is not None and time.monotonic() >= late_at
            if self._is_late or (kill_at is not None and time.monotonic() >= kill_at):
                handle.kill()
                break
            self._draining.wait(BATCH_SECONDS)
        while self._ingest(handle):
            pass

    def _ingest(self, handle: TrainerHandle) -> bool:
        """One batch of events; False if there is none."""
        events = handle.new_events()
        if not events:
            return False
        for event in events:
            if event.type == "metrics":
                known = {k: v for k, v in event.data.items() if k in PROGRESS_FIELDS and v is not None}
                self._progress = replace(self._progress, **known)
                if held := event.data.get("memory_bytes"):
                    self._last_seen = Shortage(held, held)
        self._heartbeat.persist(
            lambda: self._jobs.ingest(self._job.id, self._fence, events, self._progress),
        )
        self._show(events)
        return True

    def _show(self, events: Sequence[JobEvent]) -> None:
        """A listener that fails hears no more: the run is worth more than its progress bar."""
        if self._on_event is None:
            return
        try:
            for event in events:
                self._on_event(event)
        except Exception:
            log.exception("job %s: its progress cannot be shown any more", self._job.id)
            self._on_event = None

    def _is_to_stop(self) -> bool:
        return self._heartbeat.order is not Order.GO_ON or self._draining.is_set()

    def _patience(self) -> float | None:
        """Seconds for a trainer that was told to stop; None: as long as it takes."""
        if self._heartbeat.order is Order.CANCEL:
            return CANCEL_SECONDS
        return self._pace.drain_seconds if self._draining.is_set() else None

    def _end(self, outcome: TrainerOutcome) -> JobState:
        """Say in the row how a child ended that has made nothing."""
        how = JobError(outcome.code or "trainer_failed", outcome.message or "", outcome.faults)
        if outcome.kind == "failed" or (outcome.kind == "crashed" and self._is_final(how.code)):
            self._jobs.move(self._job.id, self._fence, JobState.FAILED, how)
            return JobState.FAILED
        if self._is_to_stop():
            return self._jobs.give_back(self._job.id, self._fence)
        # Perhaps not the job's doing: somebody stopped or killed it, or the machine slept too long.
        if outcome.kind == "stopped":
            how = JobError("trainer_stopped", "its trainer was ended from outside")
        return self._jobs.give_up(self._job.id, self._fence, how, self._pace.max_attempts)

    def _is_final(self, code: str) -> bool:
        """Whether a crash would only come again. A command in the foreground has no second worker to show."""
        if self._heartbeat.order is Order.CANCEL or code == "lease_ended":
            return False
        return code == "out_of_memory" or self._job.created_by is None
