"""Fine-tuning jobs, as those who ask for them see them."""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.core.entities.dataset_versions import DatasetReference
from app.core.entities.datasets import DatasetCheck
from app.core.entities.forecasts import Estimate
from app.core.entities.identity import DEFAULT_PROJECT_ID, Principal
from app.core.entities.jobs import DEFAULT_QUEUE, FINAL_STATES, FineTuningJob, JobEvent, JobState
from app.core.entities.limits import ProjectLimits
from app.core.entities.metrics import MetricCurve
from app.core.entities.training_config import TrainingConfig, training_config
from app.core.errors import Conflict, Fault, Invalid, NotFound
from app.core.interfaces.components import BaseModelStore, DatasetStore, TokenCache
from app.core.interfaces.operations import JobQueue
from app.core.interfaces.storage import DatasetRepository, JobRepository
from app.core.services.data.cuts import cut_of
from app.core.services.jobs.forecasting import Forecasts
from app.core.services.jobs.lineage import begin_from_version
from app.core.services.jobs.preflight import check_job
from app.core.services.jobs.request_checks import RequestChecks, project_of
from app.core.services.jobs.resuming import UnfinishedRun
from app.core.services.models.resolver import ModelResolver
from app.utils.folders import locked

JOB_ID = re.compile(r"ftjob-[0-9a-f]{24}")


@dataclass(frozen=True, slots=True)
class JobPage:
    """``next`` is the ``after`` of the page that follows, None on the last."""

    jobs: Sequence[FineTuningJob]
    next: str | None


class TrainingService:
    """A principal of None is the foreground command on the host: the default project, any path of the host.

    ``queues`` are those that a job may name; ``limits`` hold for projects that have none of their own.
    """

    def __init__(
        self,
        jobs: JobRepository,
        resolver: ModelResolver,
        datasets: DatasetStore,
        bases: BaseModelStore,
        tokens: TokenCache,
        queue: JobQueue,
        defaults: TrainingConfig,
        forecasts: Forecasts,
        dataset_versions: DatasetRepository,
        queues: Sequence[str],
        limits: ProjectLimits,
    ) -> None:
        self._jobs = jobs
        self._resolver = resolver
        self._datasets = datasets
        self._bases = bases
        self._tokens = tokens
        self._queue = queue
        self._defaults = defaults.with_changes(from_version=None)  # a request says itself where it begins
        self._forecasts = forecasts
        self._checks = RequestChecks(datasets, bases, dataset_versions)
        self._queues = queues
        self._limits = limits

    def submit(
        self,
        principal: Principal | None,
        overrides: Mapping[str, Any],
        *,
        priority: int = 0,
        queue: str = DEFAULT_QUEUE,
    ) -> FineTuningJob:
        """Save a job that trains with the defaults and ``overrides`` over them, and ring for a worker.

        ``overrides`` has the keys of TrainingConfig, flat or under ``model``, with JSON's own types. ``Invalid``
        with every fault of the config, the names in it and the data; ``TooMany`` (too_many_jobs) where as many
        of the project's wait as may, ``Forbidden`` (quota_exceeded); then nothing is saved.
        """
        return self._submit(principal, overrides, priority=priority, queue=queue)

    def retry(self, principal: Principal, job_id: str) -> FineTuningJob:
        """A new job, with ``retry_of``, that asks for what this one asked for, from the start.

        ``Conflict`` (nothing_to_retry) unless that has failed or was cancelled; else as ``submit``.
        """
        job = self.get(principal, job_id)
        if job.state not in (JobState.FAILED, JobState.CANCELLED):
            message = f"the job is {job.state.value}: only one that has failed or was cancelled is tried again"
            raise Conflict(message, code="nothing_to_retry")
        overrides = {key: value for key, value in job.config.items() if key != "output_dir"}
        return self._submit(
            principal,
            overrides,
            priority=job.priority,
            queue=job.queue,
            request=job.request,
            retry_of=job.id,
        )

    def estimate(self, principal: Principal | None, overrides: Mapping[str, Any]) -> Estimate:
        """What the job of ``submit`` would take, and whether it fits this host; nothing is saved.

        ``Invalid`` as ``submit``, and with what validation finds (invalid_data …) or what would end the run;
        ``Unavailable`` as ``Forecasts.estimate``, or base_model_missing.
        """
        config, check = self._checked(principal, overrides)
        trusted = principal is None
        stores = self._datasets, self._bases, self._tokens
        check_job(config, check.digest, *stores, trusted=trusted, go_on=lambda: True)
        prepared = cut_of(config, check.digest, self._datasets, trusted=trusted)
        return self._forecasts.estimate(config, self._bases.folder(config.base_model), Path(prepared.folder))

    def resume_run(self, run: UnfinishedRun, overrides: Mapping[str, Any]) -> FineTuningJob:
        """A job of the foreground that goes on with ``run``, in its folder and from its newest whole checkpoint.

        ``Conflict`` (run_is_finished, run_is_live), and as ``submit``. The checkpoints are the new job's then.
        """
        previous = self._jobs.get(DEFAULT_PROJECT_ID, run.job_id)
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
                job = self._submit(None, overrides, run_folder=str(run.folder.absolute()))
                run.checkpoints.rename(run.checkpoints.with_name(job.id))
        except BlockingIOError:
            raise Conflict("a trainer is at work in this run folder", code="run_is_live") from None
        return job

    def check(self, principal: Principal, overrides: Mapping[str, Any]) -> None:
        """``Invalid`` as ``submit``; nothing is saved."""
        self._checked(principal, overrides)

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
        """As ``submit``; where the same request has been heard since, and one of the two is a retry, its job."""
        of_request = {"request": request, "request_key": request_key, "is_retry": is_retry}
        return self._submit(principal, overrides, since=since, priority=priority, queue=queue, **of_request)

    def _submit(
        self,
        principal: Principal | None,
        overrides: Mapping[str, Any],
        *,
        since: datetime | None = None,
        **of_job: Any,
    ) -> FineTuningJob:
        queue = of_job.get("queue", DEFAULT_QUEUE)
        if queue not in self._queues:
            fault = Fault("queue", "unknown_queue", f"must be one of: {', '.join(self._queues)}")
            raise Invalid("the request has faults: nothing was started", faults=[fault])
        config, check = self._checked(principal, overrides)
        version = None if config.dataset_id is None else DatasetReference.parse(config.dataset_id)
        job = FineTuningJob(
            id=f"ftjob-{secrets.token_hex(12)}",
            project_id=project_of(principal),
            name=config.experiment_name,
            state=JobState.VALIDATING_FILES,
            base_model=config.base_model,
            config=config.model_dump(mode="json"),
            dataset_digest=check.digest,
            created_by=principal.user_id if principal else None,
            created_at=datetime.now(UTC),
            dataset_id=version.id if version else None,
            dataset_number=version.number if version else None,
            **of_job,
        )
        job = self._jobs.add(job, self._limits, since=since)
        self._queue.ring(job.id, job.queue)
        return job

    def _checked(
        self, principal: Principal | None, overrides: Mapping[str, Any]
    ) -> tuple[TrainingConfig, DatasetCheck]:
        # A client cannot say where on the host a run's files go, and the defaults' place is for one run only.
        defaults = self._defaults if principal is None else self._defaults.with_changes(output_dir=None)
        overrides, version_faults = begin_from_version(self._resolver, project_of(principal), overrides)
        faults = list(version_faults)
        config: TrainingConfig | None = None
        try:
            config = training_config(overrides, over=defaults, strict=True)
        except Invalid as error:
            faults.extend(error.faults)
        check, named_faults = self._checks.check(principal, config.model_dump() if config else overrides)
        faults.extend(named_faults)
        if faults or config is None or check is None:
            raise Invalid("the request has faults: nothing was started", faults=faults)
        if config.dataset_id is not None:  # by its number, so that it never moves
            config = config.with_changes(dataset_id=check.path)
        return config, check

    @property
    def default_learning_rate(self) -> float:
        return self._defaults.learning_rate

    def named_faults(self, principal: Principal | None, overrides: Mapping[str, Any]) -> Sequence[Fault]:
        """What is wrong with the version, the base model, the data and the place that a request names."""
        overrides, faults = begin_from_version(self._resolver, project_of(principal), overrides)
        return [*faults, *self._checks.check(principal, overrides)[1]]

    def get(self, principal: Principal | None, job_id: str) -> FineTuningJob:
        """``NotFound`` for another project's job too."""
        job = self._jobs.get(project_of(principal), _known(job_id))
        if job is None:
            raise _no_job(job_id)
        return job

    def list(
        self,
        principal: Principal | None,
        *,
        state: JobState | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> JobPage:
        """Newest first, from the job after ``after`` on."""
        if after is not None and not JOB_ID.fullmatch(after):
            raise Invalid("after is not the id of a job", faults=[Fault("after", "not_a_job_id", "not a job id")])
        jobs = self._jobs.list(project_of(principal), state=state, limit=limit + 1, after=after)
        return JobPage(jobs[:limit], jobs[limit - 1].id if len(jobs) > limit else None)

    def cancel(self, principal: Principal | None, job_id: str) -> FineTuningJob:
        """Again is no error; ``Conflict`` once the job has succeeded or failed."""
        job = self._jobs.request_cancel(project_of(principal), _known(job_id))
        if job is None:
            raise _no_job(job_id)
        if job.state in FINAL_STATES - {JobState.CANCELLED}:
            raise Conflict(f"the job has {job.state.value}: there is nothing to cancel", code="job_is_final")
        return job

    def pause(self, principal: Principal | None, job_id: str) -> FineTuningJob:
        """One that trains ends at its next step, with a checkpoint. Again is no error.

        ``Conflict`` while its files are validated, once it has ended, and for one of the foreground.
        """
        job = self.get(principal, job_id)
        if job.created_by is None:
            message = "this job is a command's in the foreground: end that with Ctrl-C, go on with --resume"
            raise Conflict(message, code="foreground_job")
        paused = self._jobs.request_pause(job.project_id, job.id)
        if paused is None:
            raise _no_job(job_id)
        return paused

    def resume(self, principal: Principal | None, job_id: str) -> FineTuningJob:
        """Queue a paused job again: whatever worker takes it goes on from its checkpoint. ``Conflict`` if it is
        not paused."""
        job = self._jobs.resume(project_of(principal), _known(job_id))
        if job is None:
            raise _no_job(job_id)
        self._queue.ring(job.id, job.queue)
        return job

    def events(
        self, principal: Principal | None, job_id: str, *, after: int = 0, limit: int = 100
    ) -> Sequence[JobEvent]:
        """In order, from the number after ``after`` on."""
        return self.news(principal, job_id, after=after, limit=limit)[1]

    def latest_events(
        self, principal: Principal, job_id: str, *, before: int | None = None, limit: int = 20
    ) -> Sequence[JobEvent]:
        """Newest first, from the number before ``before`` on."""
        job = self.get(principal, job_id)
        return self._jobs.latest_events(job.project_id, job.id, before=before, limit=limit)

    def metrics(self, principal: Principal | None, job_id: str, *, points: int = 500) -> MetricCurve:
        """Of the whole run so far, in as many points at most; where an attempt did steps again, its own count."""
        job = self.get(principal, job_id)
        return self._jobs.metrics(job.project_id, job.id, most=points)

    def news(
        self, principal: Principal | None, job_id: str, *, after: int, limit: int
    ) -> tuple[FineTuningJob, Sequence[JobEvent]]:
        """The job, and then its events: of a job in a final state, fewer than ``limit`` are the last there are."""
        job = self.get(principal, job_id)
        return job, self._jobs.events(job.project_id, job.id, after=after, limit=limit)


def _known(job_id: str) -> str:
    if not JOB_ID.fullmatch(job_id):
        raise _no_job(job_id)
    return job_id


def _no_job(job_id: str) -> NotFound:
    return NotFound(f"no job {job_id[:80]!r} in this project", code="job_not_found")
