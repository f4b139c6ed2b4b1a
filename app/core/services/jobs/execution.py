"""Carries jobs of any kind to their end. The row is the truth; whoever claims it holds it for a lease."""

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any

from app.core.entities.jobs import FINAL_STATES, Claim, FineTuningJob, JobError, JobEvent, JobState, Order
from app.core.entities.limits import ProjectLimits
from app.core.errors import AppError, Conflict, StaleAttempt
from app.core.interfaces.job_kinds import Finished, JobKind, Watch
from app.core.interfaces.operations import TrainerLauncher
from app.core.interfaces.services.jobs import Execution, OnEvent
from app.core.interfaces.storage import JobRepository
from app.core.services.jobs.attempt import Attempt, Pace
from app.core.services.jobs.heartbeat import Heartbeat, Reaper
from app.core.services.jobs.job_records import no_job
from app.utils.clock import boottime

log = logging.getLogger(__name__)
LONGEST_WAIT = 0.5  # seconds between two looks at whether to stop
LOST_SECONDS = 0.5  # between two looks at a job that another process holds
FORGET_SECONDS = 60.0  # between two looks for rows that are kept no longer


class ExecutionService(Execution):
    """``threads`` is what each child may use, ``queues`` those whose jobs it takes (None: all), ``limits`` hold
    for projects that have none of their own.
    """

    def __init__(
        self,
        jobs: JobRepository,
        kinds: Mapping[str, JobKind],
        launcher: TrainerLauncher,
        lease_seconds: float,
        pace: Pace,
        threads: int,
        queues: Sequence[str] | None,
        limits: ProjectLimits,
    ) -> None:
        self._jobs = jobs
        self._kinds = kinds
        self._launcher = launcher
        self._lease_seconds = lease_seconds
        # Each renewal also asks whether to cancel, so it is not left to a third of a long lease.
        self._beat_seconds = min(pace.poll_seconds, lease_seconds / 3)
        self._pace = replace(pace, poll_seconds=min(pace.poll_seconds, LONGEST_WAIT))
        self._threads = threads
        self._queues = queues
        self._limits = limits
        self._reaper = Reaper(jobs, pace.max_attempts)
        self._draining = threading.Event()
        self._forget_at = 0.0

    def run_next(
        self,
        owner: str,
        job_id: str | None = None,
        on_event: OnEvent | None = None,
        gpus: str | None = None,
        *,
        is_light: bool = False,
    ) -> bool:
        if self._draining.is_set():
            return False
        read_before = boottime()
        choice: dict[str, Any] = {"queues": self._queues, "limits": self._limits, "is_light": is_light}
        choice["kinds"] = list(self._kinds)  # others are left to a worker that knows them
        claim = self._jobs.claim(owner, self._lease_seconds, job_id, **choice)
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
        if not self._draining.is_set():
            self._launcher.prepare(self._threads, gpus)

    def dismiss(self) -> None:
        self._launcher.dismiss()

    def watch_leases(self) -> None:
        self._reaper.scan()
        if time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + FORGET_SECONDS
            self._forget()

    def carry(self, job: FineTuningJob, on_event: OnEvent | None = None) -> FineTuningJob:
        owner = f"{socket.gethostname()}:{os.getpid()}:foreground"
        while job.state not in FINAL_STATES:
            if not self.run_next(owner, job.id, on_event=on_event):
                # A worker has it; or the claim was lost, and there may be no worker to find that out.
                time.sleep(LOST_SECONDS)
                self.watch_leases()
            found = self._jobs.get(job.project_id, job.id)
            if found is None:
                raise no_job(job.id)
            job = found
        return job

    def drain(self) -> None:
        self._draining.set()

    def _forget(self) -> None:
        for kind in self._kinds.values():
            if kind.kept is not None:
                for job_id in self._jobs.forget(kind.name, datetime.now(UTC) - kind.kept):
                    kind.forget(job_id)

    def _carry(self, claim: Claim, heartbeat: Heartbeat, on_event: OnEvent | None, gpus: str | None) -> None:
        try:
            kind = self._kinds[claim.job.kind]
            if claim.job.inputs:
                claim = replace(claim, job=self._bound(claim, kind, heartbeat))
            if claim.job.state is JobState.VALIDATING_FILES:
                self._validate(claim, kind, heartbeat)
            else:
                self._run(claim, kind, heartbeat, on_event, gpus)
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

    def _bound(self, claim: Claim, kind: JobKind, heartbeat: Heartbeat) -> FineTuningJob:
        """Check the request of a chain's job again, now with what the jobs before it have made."""
        job = claim.job
        made: dict[str, str] = {}
        for key, needed in job.inputs.items():
            source = heartbeat.persist(partial(self._jobs.get, job.project_id, needed))
            if source is None or not source.made:
                raise Conflict(f"{key}: job {needed} has made nothing to go on with", code="dependency_failed")
            made[key] = source.made[0]
        draft = heartbeat.persist(partial(kind.check, job.asker, {**job.config, **made}))
        bound = replace(
            job,
            name=draft.name,
            config=draft.config,
            base_model=draft.base_model,
            dataset_digest=draft.dataset_digest,
            dataset_id=draft.dataset_id,
            dataset_number=draft.dataset_number,
            inputs={},
        )
        heartbeat.persist(partial(self._jobs.bind, bound, claim.fence))
        return bound

    def _watch(self, claim: Claim, heartbeat: Heartbeat) -> Watch:
        def go_on() -> bool:
            return not (self._draining.is_set() or heartbeat.lost or heartbeat.order is Order.CANCEL)

        numbers = count(-1, -1)  # those from 1 on are the child's

        def say(message: str, data: Mapping[str, Any]) -> None:
            event = JobEvent(next(numbers), "message", "info", message, datetime.now(UTC), data)
            heartbeat.persist(lambda: self._jobs.ingest(claim.job.id, claim.fence, [event], None))

        return Watch(go_on, say, heartbeat.persist)

    def _validate(self, claim: Claim, kind: JobKind, heartbeat: Heartbeat) -> None:
        kind.validate(claim.job, self._watch(claim, heartbeat))
        if heartbeat.order is Order.CANCEL or self._draining.is_set():
            heartbeat.persist(lambda: self._jobs.give_back(claim.job.id, claim.fence))
        else:
            heartbeat.persist(lambda: self._jobs.move(claim.job.id, claim.fence, JobState.QUEUED))

    def _run(
        self, claim: Claim, kind: JobKind, heartbeat: Heartbeat, on_event: OnEvent | None, gpus: str | None
    ) -> None:
        job = claim.job
        for lost in range(1, claim.fence):  # between what it laid down and the row's word for it
            kind.discard(job, lost)
        attempt = Attempt(
            *(self._jobs, self._launcher, kind, claim, heartbeat, self._draining),
            *(self._pace, self._limits, on_event),
        )
        task = kind.begin(job, claim.fence, self._watch(claim, heartbeat))
        if isinstance(task, Finished):
            attempt.succeed(task)
            return
        whole = {
            **task.job_file,
            "job_id": job.id,
            "attempt": claim.fence,
            "runner": kind.runner,
            "run_folder": str(task.folder),
            "threads": self._threads,
            "gpus": gpus,
        }
        heartbeat.persist(partial(self._jobs.set_run_folder, job.id, claim.fence, task.name))
        attempt.run(replace(task, job_file=whole))
