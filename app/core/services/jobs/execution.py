"""Carries jobs from the queue to their end. The row is the truth; whoever claims it holds it for a lease."""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from app.core.entities.jobs import Claim, FineTuningJob, JobError, JobEvent, JobState, Order
from app.core.entities.ledger import TokenLedger
from app.core.entities.limits import ProjectLimits
from app.core.entities.models import Reference
from app.core.entities.training_config import TrainingConfig
from app.core.errors import AppError, NotFound, StaleAttempt
from app.core.interfaces.components import ArtifactStore, BaseModelStore, DatasetStore, TokenCache
from app.core.interfaces.operations import TrainerLauncher
from app.core.interfaces.storage import JobRepository
from app.core.services.data.cuts import cut_of
from app.core.services.jobs.attempt import Attempt
from app.core.services.jobs.forecasting import Forecasts
from app.core.services.jobs.heartbeat import Heartbeat, Reaper
from app.core.services.jobs.preflight import check_job
from app.core.services.jobs.room import DATA_FOLDER, RUN_FOLDER, needs_room
from app.core.services.jobs.run_folders import folder_name, make_run_folder
from app.core.services.models.resolver import ModelResolver
from app.utils.clock import boottime
from app.utils.files import write_whole

log = logging.getLogger(__name__)
LONGEST_WAIT = 0.5  # seconds between two looks at whether to stop

OnEvent = Callable[[JobEvent], None]


class ExecutionService:
    """``threads`` is what each trainer may use, ``queues`` those whose jobs it takes (None: all), ``limits`` hold
    for projects that have none of their own. Safe to call from many threads.
    """

    def __init__(
        self,
        jobs: JobRepository,
        resolver: ModelResolver,
        datasets: DatasetStore,
        bases: BaseModelStore,
        tokens: TokenCache,
        artifacts: ArtifactStore,
        launcher: TrainerLauncher,
        forecasts: Forecasts,
        results_dir: Path,
        lease_seconds: float,
        poll_seconds: float,
        drain_seconds: float,
        max_attempts: int,
        threads: int,
        queues: Sequence[str] | None,
        limits: ProjectLimits,
    ) -> None:
        self._jobs = jobs
        self._resolver = resolver
        self._datasets = datasets
        self._bases = bases
        self._tokens = tokens
        self._artifacts = artifacts
        self._launcher = launcher
        self._forecasts = forecasts
        self._results = results_dir
        self._lease_seconds = lease_seconds
        # Each renewal also asks whether to cancel, so it is not left to a third of a long lease.
        self._beat_seconds = min(poll_seconds, lease_seconds / 3)
        self._poll_seconds = min(poll_seconds, LONGEST_WAIT)
        self._drain_seconds = drain_seconds
        self._max_attempts = max_attempts
        self._threads = threads
        self._queues = queues
        self._limits = limits
        self._reaper = Reaper(jobs, max_attempts)
        self._draining = threading.Event()

    def run_next(
        self, owner: str, job_id: str | None = None, on_event: OnEvent | None = None, gpus: str | None = None
    ) -> bool:
        """Claim a job that waits and carry it as far as it goes; False if there is none, or when draining.

        One that was to be validated is queued or failed, and waits to be claimed again; one that was queued is
        trained, on the ``gpus`` of this slot (``0,1``; empty: on none; None: on whatever there is). ``on_event``
        hears what its trainer says. ``Unavailable`` if the database does not answer.
        """
        if self._draining.is_set():
            return False
        read_before = boottime()
        claim = self._jobs.claim(owner, self._lease_seconds, job_id, queues=self._queues, limits=self._limits)
        if claim is None:
            return False
        log.info("job %s: claimed by %s in %s, claim %d", claim.job.id, owner, claim.job.state, claim.fence)
        with Heartbeat(self._jobs, claim, read_before, self._beat_seconds) as heartbeat:
            try:
                self._carry(claim, heartbeat, on_event, gpus)
            except StaleAttempt as error:
                log.warning("job %s: claim %d walks away: %s", claim.job.id, claim.fence, error)
        return True

    def prepare(self, gpus: str | None = None) -> None:
        """Have a spare trainer for the next job of this thread. To be called each poll interval without one."""
        if not self._draining.is_set():
            self._launcher.prepare(self._threads, gpus)

    def dismiss(self) -> None:
        """Leave no spare trainer of this thread."""
        self._launcher.dismiss()

    def watch_leases(self) -> None:
        """One look at who holds what: jobs whose owner is lost are let go. To be called each poll interval."""
        self._reaper.scan()

    def drain(self) -> None:
        """Claim no more, stop trainers and give their jobs back. Returns at once; ``run_next`` does it."""
        self._draining.set()

    def _carry(self, claim: Claim, heartbeat: Heartbeat, on_event: OnEvent | None, gpus: str | None) -> None:
        try:
            config = TrainingConfig.model_validate(claim.job.config)
            if claim.job.state is JobState.VALIDATING_FILES:
                self._validate(claim, config, heartbeat)
            else:
                self._train(claim, config, heartbeat, on_event, gpus)
        except StaleAttempt:
            raise
        except KeyboardInterrupt:  # in the foreground; a worker's slot gets none
            with suppress(AppError):
                self._jobs.move(claim.job.id, claim.fence, JobState.CANCELLED)
            raise
        except AppError as error:
            self._fail(claim, heartbeat, JobError(error.code, error.message, error.faults))
        except Exception:
            log.exception("job %s: claim %d failed", claim.job.id, claim.fence)
            message = "the worker failed: its log says why"
            self._fail(claim, heartbeat, JobError("internal_error", message))

    def _fail(self, claim: Claim, heartbeat: Heartbeat, error: JobError) -> None:
        log.info("job %s: failed: %s: %s", claim.job.id, error.code, error.message)
        heartbeat.persist(lambda: self._jobs.move(claim.job.id, claim.fence, JobState.FAILED, error))

    def _validate(self, claim: Claim, config: TrainingConfig, heartbeat: Heartbeat) -> None:
        def go_on() -> bool:
            return not (self._draining.is_set() or heartbeat.lost or heartbeat.order is Order.CANCEL)

        # Gone artifacts are a fault of now, not of when it is its turn.
        self._start_from(claim.job, config, heartbeat)
        digest, trusted = claim.job.dataset_digest, _trusted(claim)
        stores = self._datasets, self._bases, self._tokens
        with needs_room(DATA_FOLDER):
            found = check_job(config, digest, *stores, trusted=trusted, go_on=go_on)
        if found is not None:
            heartbeat.persist(partial(self._record, claim, found.ledger))
            prepared = cut_of(config, digest, self._datasets, trusted=trusted)
            base = self._bases.folder(config.base_model)
            self._forecasts.check_fit(config, base, Path(prepared.folder), found.longest_row, go_on)
        if heartbeat.order is Order.CANCEL or self._draining.is_set():
            heartbeat.persist(lambda: self._jobs.give_back(claim.job.id, claim.fence))
        else:
            heartbeat.persist(lambda: self._jobs.move(claim.job.id, claim.fence, JobState.QUEUED))

    def _record(self, claim: Claim, ledger: TokenLedger) -> None:
        """The job's events say what becomes of every token of its data."""
        every = ledger.all
        message = (
            f"tokens: {every.trained:,} trained, {every.masked:,} masked, {every.truncated:,} truncated, "
            f"{every.dropped:,} dropped"
        )
        event = JobEvent(1, "message", "info", message, datetime.now(UTC), {"token_ledger": ledger.as_dict()})
        self._jobs.ingest(claim.job.id, claim.fence, [event], None)

    def _train(
        self,
        claim: Claim,
        config: TrainingConfig,
        heartbeat: Heartbeat,
        on_event: OnEvent | None,
        gpus: str | None,
    ) -> None:
        job = claim.job
        trusted = _trusted(claim)
        base = self._bases.folder(config.base_model)
        start_from = self._start_from(job, config, heartbeat)
        with needs_room(DATA_FOLDER):
            prepared = cut_of(config, job.dataset_digest, self._datasets, trusted=trusted)
        with needs_room(RUN_FOLDER):
            run_folder = make_run_folder(self._results, job, config, trusted=trusted)
        name = folder_name(self._results, run_folder)
        heartbeat.persist(lambda: self._jobs.set_run_folder(job.id, claim.fence, name))
        plain = config.model_dump(mode="json")
        with needs_room(RUN_FOLDER):
            write_whole(run_folder / "config.yaml", yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
        known = self._forecasts.known(config, base, Path(prepared.folder))
        job_file: dict[str, Any] = {
            "job_id": job.id,
            "attempt": claim.fence,
            "config": plain,
            "base_model_folder": str(base),
            "start_from": None if start_from is None else str(start_from),
            "dataset_folder": prepared.folder,
            "run_folder": str(run_folder),
            "threads": self._threads,
            "gpus": gpus,
            "forecast": None if known is None else asdict(known),
        }
        attempt = Attempt(
            self._jobs,
            self._artifacts,
            self._launcher,
            claim,
            config,
            self._bases.digest(config.base_model),
            heartbeat,
            self._draining,
            self._poll_seconds,
            self._drain_seconds,
            self._max_attempts,
            self._limits,
            on_event,
        )
        attempt.run(job_file, run_folder)

    def _start_from(self, job: FineTuningJob, config: TrainingConfig, heartbeat: Heartbeat) -> Path | None:
        """The artifacts of the version that the job trains on from; it was found when the job was submitted."""
        if config.from_version is None:
            return None
        reference = Reference.parse(config.from_version)
        version = heartbeat.persist(partial(self._resolver.version, job.project_id, reference))
        if version is None:
            raise NotFound(f"from_version: {config.from_version} is gone", code="model_not_found")
        self._resolver.check_base(version)
        return self._artifacts.folder(version)


def _trusted(claim: Claim) -> bool:
    """A job of the foreground, submitted by nobody over HTTP, may name any path of the host."""
    return claim.job.created_by is None
