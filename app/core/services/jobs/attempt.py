"""One attempt at a running job: a trainer process and what becomes of it."""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from app.core.entities.forecasts import Shortage
from app.core.entities.jobs import Claim, JobError, JobEvent, JobState, Order, Progress
from app.core.entities.limits import ProjectLimits
from app.core.entities.models import ModelVersion
from app.core.entities.training_config import TrainingConfig
from app.core.errors import AppError, Forbidden, StaleAttempt
from app.core.interfaces.components import ArtifactStore
from app.core.interfaces.operations import TrainerHandle, TrainerLauncher, TrainerOutcome
from app.core.interfaces.storage import JobRepository
from app.core.services.jobs.heartbeat import Heartbeat
from app.core.services.jobs.room import REGISTRY, RUN_FOLDER, needs_room
from app.core.services.jobs.run_folders import new_folder
from app.core.services.jobs.shortage import explain

CANCEL_SECONDS = 3.0  # for a trainer to stop at its next step; then it is killed
BATCH_SECONDS = 0.1  # events that come closer together are written in one transaction
VERSION_IDS = uuid.UUID("6f5c6f0e-6f0b-4a0e-9a53-2f6f3f1c7b55")
PROGRESS_FIELDS = frozenset(field.name for field in fields(Progress))

log = logging.getLogger(__name__)


class Attempt:
    """Follows one trainer. ``draining`` set means: stop it and leave the job to another worker.

    A trainer that is to stop saves a checkpoint first. To pause it has as long as it needs, to drain
    ``drain_seconds``.
    """

    def __init__(
        self,
        jobs: JobRepository,
        artifacts: ArtifactStore,
        launcher: TrainerLauncher,
        claim: Claim,
        config: TrainingConfig,
        base_digest: str | None,
        heartbeat: Heartbeat,
        draining: threading.Event,
        poll_seconds: float,
        drain_seconds: float,
        max_attempts: int,
        limits: ProjectLimits,
        on_event: Callable[[JobEvent], None] | None,
    ) -> None:
        self._jobs = jobs
        self._artifacts = artifacts
        self._launcher = launcher
        self._job = claim.job
        self._fence = claim.fence
        self._config = config
        self._base_digest = base_digest
        self._heartbeat = heartbeat
        self._draining = draining
        self._poll_seconds = poll_seconds
        self._drain_seconds = drain_seconds
        self._max_attempts = max_attempts
        self._limits = limits
        self._on_event = on_event
        self._progress = Progress()
        self._last_seen: Shortage | None = None  # of memory, if it is the system that ends the trainer

    def run(self, job_file: Mapping[str, Any], run_folder: Path) -> None:
        """To the row's last word. ``StaleAttempt`` if the job was lost on the way; no trainer is left then."""
        for lost in range(1, self._fence):  # between its publishing and the row's word for it
            self._artifacts.discard(self._version_id(lost))
        self._take_up(run_folder)
        outcome = self._train(job_file, run_folder)
        log.info("job %s: the trainer of claim %d %s", self._job.id, self._fence, outcome.kind)
        if outcome.kind == "succeeded":
            self._publish(outcome.result or {}, run_folder / "artifacts")
            return
        if outcome.code == "out_of_memory":
            shortage = outcome.shortage or self._last_seen
            message = explain(outcome.message or "out of memory", shortage, self._config, job_file)
            outcome = replace(outcome, message=message)
        state = self._heartbeat.persist(lambda: self._end(outcome))
        log.info("job %s: now %s", self._job.id, state)

    def _take_up(self, run_folder: Path) -> None:
        """Events that an earlier attempt could not hand in: its lease ended while the database was away."""

        def last_kept(claim: int) -> int:
            return self._heartbeat.persist(lambda: self._jobs.last_seq(self._job.id, claim))

        for claim, events in self._launcher.earlier_events(run_folder, self._job.id, self._fence, last_kept):
            ingest = partial(self._jobs.ingest, self._job.id, self._fence, events, None, said_in=claim)
            self._heartbeat.persist(ingest)

    def _train(self, job_file: Mapping[str, Any], run_folder: Path) -> TrainerOutcome:
        with needs_room(RUN_FOLDER):
            folder = new_folder(run_folder / "attempts", str(self._fence))
            handle = self._launcher.start(job_file, folder, self._heartbeat.deadline)
        try:
            self._heartbeat.vouch_for(handle)
            self._follow(handle)
        finally:
            self._heartbeat.vouch_for(None)
            handle.kill()  # the processes that a trainer leaves behind, or itself if we walk away
        return handle.outcome()

    def _follow(self, handle: TrainerHandle) -> None:
        kill_at: float | None = None
        told = False
        while not handle.wait(self._poll_seconds):
            self._ingest(handle)
            if self._heartbeat.lost:
                raise StaleAttempt(f"attempt {self._fence} no longer holds job {self._job.id}")
            if not told and self._is_to_stop():
                handle.stop()
                told = True
            if kill_at is None and (patience := self._patience()) is not None:
                kill_at = time.monotonic() + patience
            if kill_at is not None and time.monotonic() >= kill_at:
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
        return self._drain_seconds if self._draining.is_set() else None

    def _end(self, outcome: TrainerOutcome) -> JobState:
        """The row's word on a trainer that has published nothing."""
        how = JobError(outcome.code or "trainer_failed", outcome.message or "", outcome.faults)
        if outcome.kind == "failed" or (outcome.kind == "crashed" and self._is_final(how.code)):
            self._jobs.move(self._job.id, self._fence, JobState.FAILED, how)
            return JobState.FAILED
        if self._is_to_stop():
            return self._jobs.give_back(self._job.id, self._fence)
        # Perhaps not the job's doing: somebody stopped or killed it, or the machine slept too long.
        if outcome.kind == "stopped":
            how = JobError("trainer_stopped", "its trainer was ended from outside")
        return self._jobs.give_up(self._job.id, self._fence, how, self._max_attempts)

    def _is_final(self, code: str) -> bool:
        """Whether a crash would only come again. A command in the foreground has no second worker to show."""
        if self._heartbeat.order is Order.CANCEL or code == "lease_ended":
            return False
        return code == "out_of_memory" or self._job.created_by is None

    def _version_id(self, fence: int) -> str:
        return uuid.uuid5(VERSION_IDS, f"{self._job.id}/{fence}").hex

    def _publish(self, result: Mapping[str, Any], folder: Path) -> None:
        """Artifacts first, then the row; the id belongs to this attempt, so that again is the same again."""
        version_id = self._version_id(self._fence)
        with needs_room(REGISTRY):
            artifacts = self._artifacts.publish(version_id, folder)
        version = ModelVersion(
            id=version_id,
            project_id=self._job.project_id,
            name=self._config.published_name,
            number=0,
            base_model=self._config.base_model,
            template_hash=result["template_hash"],
            artifacts=artifacts,
            job_id=self._job.id,
            dataset_digest=self._job.dataset_digest,
            config=self._job.config,
            metrics=result["metrics"],
            created_by=self._job.created_by,
            created_at=datetime.now(UTC),
            base_digest=self._base_digest,
            size=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        )
        try:
            self._heartbeat.persist(
                lambda: self._jobs.succeed(self._job.id, self._fence, version, result["metrics"], self._limits)
            )
        except AppError as error:
            # The answer to a commit may be lost and the try after it refused: then the row names the version.
            job = self._heartbeat.persist(lambda: self._jobs.get(self._job.project_id, self._job.id))
            if job is not None and job.model_version_id == version_id:
                return
            self._artifacts.discard(artifacts)
            if error.code == "quota_exceeded":
                message = (
                    f"trained, and not published: {error.message}; what was trained stays in the run's folder"
                )
                raise Forbidden(message, code=error.code) from error
            raise
