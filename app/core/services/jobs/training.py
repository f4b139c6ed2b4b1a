"""Requests to train: submitted, estimated, gone on with."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from app.core.entities.forecasts import Estimate, Forecast
from app.core.entities.identity import Principal
from app.core.entities.jobs import DEFAULT_QUEUE, FINAL_STATES, FineTuningJob, JobState, UnfinishedRun
from app.core.entities.training_config import TrainingConfig
from app.core.errors import AppError, Conflict, Fault, Invalid, Unavailable
from app.core.interfaces.services.jobs import Training
from app.core.interfaces.storage import JobRepository
from app.core.services.jobs.job_service import JobService
from app.core.services.jobs.training_requests import TrainingRequests
from app.utils.folders import locked

RETRY_SECONDS = 10  # until an estimate that took too long is asked for again
CRASHED = frozenset({"poisoned", "trainer_failed"})
# What keeps an estimate from being made without saying anything of the run.
NOT_THE_RUN = frozenset(
    {
        *CRASHED,
        *("base_model_missing", "estimate_failed", "estimate_timeout"),
        *("internal_error", "disk_full", "dataset_missing", "artifacts_missing", "base_mismatch"),
    }
)


class TrainingService(Training):
    def __init__(self, requests: TrainingRequests, jobs: JobService, repository: JobRepository) -> None:
        self._requests = requests
        self._jobs = jobs
        self._repository = repository

    @property
    def defaults(self) -> TrainingConfig:
        return self._requests.defaults

    def submit(
        self,
        principal: Principal,
        overrides: Mapping[str, Any],
        *,
        priority: int = 0,
        queue: str = DEFAULT_QUEUE,
        after: Sequence[str] = (),
        foreground: bool = False,
    ) -> FineTuningJob:
        where: dict[str, Any] = {"priority": priority, "queue": queue, "after": after, "foreground": foreground}
        return self._jobs.submit(principal, "train", overrides, **where)

    def submit_once(
        self,
        principal: Principal,
        overrides: Mapping[str, Any],
        *,
        since: datetime,
        request: Mapping[str, Any],
        request_key: str,
        is_retry: bool,
        priority: int,
        queue: str,
    ) -> FineTuningJob:
        of_request: dict[str, Any] = {"request": request, "request_key": request_key, "is_retry": is_retry}
        where: dict[str, Any] = {"since": since, "priority": priority, "queue": queue}
        return self._jobs.submit(principal, "train", overrides, **where, **of_request)

    def submit_estimate(self, principal: Principal, overrides: Mapping[str, Any]) -> FineTuningJob:
        return self._jobs.submit(principal, "estimate", overrides)

    @staticmethod
    def estimate_of(job: FineTuningJob) -> Estimate | None:
        if job.state not in FINAL_STATES:
            return None
        if job.state is JobState.CANCELLED:
            raise Conflict("the estimate was cancelled: ask again", code="cancelled")
        if job.error is not None:
            kind: type[AppError] = Unavailable if job.error.code in NOT_THE_RUN else Invalid
            code = "estimate_failed" if job.error.code in CRASHED else job.error.code
            wait = RETRY_SECONDS if code == "estimate_timeout" else None
            raise kind(job.error.message, code=code, faults=job.error.faults, retry_after=wait)
        return Estimate(**{**job.result, "forecast": Forecast(**job.result["forecast"])})

    def resume_run(self, run: UnfinishedRun, overrides: Mapping[str, Any]) -> FineTuningJob:
        host = Principal.host()
        previous = self._repository.get(host.project_id, run.job_id)
        if run.has_artifacts if previous is None else previous.state is JobState.SUCCEEDED:
            raise Conflict("this run is finished: its version is published", code="run_is_finished")
        # A command that was killed leaves its row as it was; a job of the service has a worker to go on with it.
        if previous and previous.created_by is not None and previous.state not in FINAL_STATES:
            raise Conflict(
                f"job {previous.id} is {previous.state.value} and a worker's to go on with: cancel it first",
                code="run_is_live",
            )
        try:
            with locked(run.checkpoints, wait=False):
                folder = str(run.folder.absolute())
                job = self._jobs.submit(host, "train", overrides, foreground=True, run_folder=folder)
                run.checkpoints.rename(run.checkpoints.with_name(job.id))
        except BlockingIOError:
            raise Conflict("a trainer is at work in this run folder", code="run_is_live") from None
        return job

    def check(self, principal: Principal, overrides: Mapping[str, Any]) -> None:
        self._requests.check(principal, overrides)

    def config_faults(self, principal: Principal, overrides: Mapping[str, Any]) -> Sequence[Fault]:
        return self._requests.config_faults(principal, overrides)

    def named_faults(self, principal: Principal, overrides: Mapping[str, Any]) -> Sequence[Fault]:
        return self._requests.named_faults(principal, overrides)
