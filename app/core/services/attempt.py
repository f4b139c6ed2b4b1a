"""One attempt at a running job: a trainer process and what becomes of it."""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.core.entities.jobs import Claim, JobError, JobEvent, JobState, Progress
from app.core.entities.models import ModelVersion
from app.core.entities.training_config import TrainingConfig
from app.core.errors import AppError, StaleAttempt
from app.core.interfaces.components import ArtifactStore
from app.core.interfaces.operations import TrainerHandle, TrainerLauncher, TrainerOutcome
from app.core.interfaces.storage import JobRepository
from app.core.services.heartbeat import Heartbeat
from app.core.services.run_folders import new_folder

STOP_SECONDS = 3.0  # for a trainer that was asked to stop; then it is killed
BATCH_SECONDS = 0.1  # events that come closer together are written in one transaction
VERSION_IDS = uuid.UUID("6f5c6f0e-6f0b-4a0e-9a53-2f6f3f1c7b55")
PROGRESS_FIELDS = frozenset(field.name for field in fields(Progress))

log = logging.getLogger(__name__)


class Attempt:
    """Follows one trainer. ``draining`` set means: stop it and leave the job to another worker."""

    def __init__(
        self,
        jobs: JobRepository,
        artifacts: ArtifactStore,
        launcher: TrainerLauncher,
        claim: Claim,
        config: TrainingConfig,
        heartbeat: Heartbeat,
        draining: threading.Event,
        poll_seconds: float,
        max_attempts: int,
        on_event: Callable[[JobEvent], None] | None,
    ) -> None:
        self._jobs = jobs
        self._artifacts = artifacts
        self._launcher = launcher
        self._job = claim.job
        self._fence = claim.fence
        self._config = config
        self._heartbeat = heartbeat
        self._draining = draining
        self._poll_seconds = poll_seconds
        self._max_attempts = max_attempts
        self._on_event = on_event
        self._progress = Progress()

    def run(self, job_file: Mapping[str, Any], run_folder: Path) -> None:
        """To the row's last word. ``StaleAttempt`` if the job was lost on the way; no trainer is left then."""
        for lost in range(1, self._fence):  # between its publishing and the row's word for it
            self._artifacts.discard(self._version_id(lost))
        outcome = self._train(job_file, new_folder(run_folder / "attempts", str(self._fence)))
        log.info("job %s: the trainer of claim %d %s", self._job.id, self._fence, outcome.kind)
        if outcome.kind == "succeeded":
            self._publish(outcome.result or {}, run_folder / "artifacts")
            return
        to, error = self._verdict(outcome)
        self._heartbeat.persist(lambda: self._jobs.move(self._job.id, self._fence, to, error))

    def _train(self, job_file: Mapping[str, Any], folder: Path) -> TrainerOutcome:
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
        while not handle.wait(self._poll_seconds):
            self._ingest(handle)
            if self._heartbeat.lost:
                raise StaleAttempt(f"attempt {self._fence} no longer holds job {self._job.id}")
            if kill_at is None and (self._heartbeat.cancel_requested or self._draining.is_set()):
                handle.stop()
                kill_at = time.monotonic() + STOP_SECONDS
            if kill_at is not None and time.monotonic() >= kill_at:
                handle.kill()
                break
            self._draining.wait(BATCH_SECONDS)
        self._ingest(handle)

    def _ingest(self, handle: TrainerHandle) -> None:
        events = handle.new_events()
        if not events:
            return
        for event in events:
            if event.type == "metrics":
                known = {k: v for k, v in event.data.items() if k in PROGRESS_FIELDS and v is not None}
                self._progress = replace(self._progress, **known)
        self._heartbeat.persist(
            lambda: self._jobs.ingest(self._job.id, self._fence, events, self._progress),
        )
        if self._on_event is not None:
            for event in events:
                self._on_event(event)

    def _verdict(self, outcome: TrainerOutcome) -> tuple[JobState, JobError | None]:
        if outcome.kind == "failed":
            error = JobError(outcome.code or "trainer_failed", outcome.message or "", outcome.faults)
            return JobState.FAILED, error
        if self._heartbeat.cancel_requested:
            return JobState.CANCELLED, None
        if self._draining.is_set():
            return JobState.QUEUED, None
        # Neither is the job's doing: the machine slept past the lease, or somebody ended the trainer.
        if outcome.kind == "stopped" or outcome.code == "lease_ended":
            if self._job.attempts < self._max_attempts:
                return JobState.QUEUED, None
            message = f"its trainer was ended from outside in {self._job.attempts} attempts"
            return JobState.FAILED, JobError("poisoned", message)
        return JobState.FAILED, JobError(outcome.code or "trainer_failed", outcome.message or "")

    def _version_id(self, fence: int) -> str:
        return uuid.uuid5(VERSION_IDS, f"{self._job.id}/{fence}").hex

    def _publish(self, result: Mapping[str, Any], folder: Path) -> None:
        """Artifacts first, then the row; the id belongs to this attempt, so that again is the same again."""
        version_id = self._version_id(self._fence)
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
        )
        try:
            self._heartbeat.persist(
                lambda: self._jobs.succeed(self._job.id, self._fence, version, result["metrics"])
            )
        except AppError:
            # The answer to a commit may be lost and the try after it refused: then the row names the version.
            job = self._heartbeat.persist(lambda: self._jobs.get(self._job.project_id, self._job.id))
            if job is not None and job.model_version_id == version_id:
                return
            self._artifacts.discard(artifacts)
            raise
