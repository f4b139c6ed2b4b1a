"""What the service offers around jobs: to those who ask for them, and to the workers that carry them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from app.core.entities.forecasts import Estimate
from app.core.entities.identity import Principal
from app.core.entities.jobs import DEFAULT_QUEUE, FineTuningJob, JobEvent, JobPage, JobState, Step, UnfinishedRun
from app.core.entities.metrics import MetricCurve
from app.core.entities.training_config import TrainingConfig
from app.core.entities.tuning import SavedCheckpoint, TuningRequest
from app.core.errors import Fault

OnEvent = Callable[[JobEvent], None]


class Jobs(ABC):
    """Submits and controls jobs of every kind. A principal of None is the foreground command on the host."""

    @property
    @abstractmethod
    def kinds(self) -> Sequence[str]:
        """Return the names of the kinds that jobs may have."""

    @abstractmethod
    def submit(
        self,
        principal: Principal | None,
        kind: str,
        request: Mapping[str, Any],
        /,
        *,
        priority: int = 0,
        queue: str = DEFAULT_QUEUE,
        after: Sequence[str] = (),
        since: datetime | None = None,
        **of_job: Any,
    ) -> FineTuningJob:
        """Check a request, save its job, ring for a worker; return the job.

        ``after`` are ids of jobs that must succeed first; ``of_job`` are further fields of the job; for ``since``
        see ``JobRepository.add``. ``Invalid`` with every fault; ``TooMany`` (too_many_jobs) where the project has
        too many waiting jobs, ``Forbidden`` (quota_exceeded), ``Conflict`` (dependency_failed), ``NotFound``; then
        nothing is saved.
        """

    @abstractmethod
    def submit_chain(
        self, principal: Principal, steps: Sequence[Step], *, priority: int = 0, queue: str = DEFAULT_QUEUE
    ) -> Sequence[FineTuningJob]:
        """Save a job for each step, all or none; each waits for the steps that it names.

        What a step is to go on with is not there yet: its request is checked now with something like it in its
        place, and again when it is. ``Invalid`` with every fault of every step.
        """

    @abstractmethod
    def retry(self, principal: Principal, job_id: str, kind: str | None = None) -> FineTuningJob:
        """Save a new job, with ``retry_of``, that asks for what this one asked for, from the start.

        ``Conflict`` (nothing_to_retry) unless that has failed or was cancelled; else as ``submit``.
        """

    @abstractmethod
    def cancel(self, principal: Principal | None, job_id: str, kind: str | None = None) -> FineTuningJob:
        """Cancel a job, or ask its attempt to end. Again is no error; ``Conflict`` once it has another end."""

    @abstractmethod
    def pause(self, principal: Principal | None, job_id: str, kind: str | None = None) -> FineTuningJob:
        """Pause a job; one that runs ends at its next step, with a checkpoint. Again is no error.

        ``Conflict`` while its files are validated, once it has ended, for one of the foreground, and
        (cannot_pause) for one of a kind that has no place to go on from.
        """

    @abstractmethod
    def resume(self, principal: Principal | None, job_id: str, kind: str | None = None) -> FineTuningJob:
        """Queue a paused job again: the worker that takes it goes on from its checkpoint.

        ``Conflict`` if it is not paused.
        """


class JobReader(ABC):
    """Reads jobs of every kind, and what they have said.

    A principal of None is the foreground command on the host.
    """

    @abstractmethod
    def get(self, principal: Principal | None, job_id: str, kind: str | None = None) -> FineTuningJob:
        """Return a job. ``NotFound`` for another project's too, and for one of another kind than ``kind``."""

    @abstractmethod
    def list(
        self,
        principal: Principal | None,
        *,
        state: JobState | None = None,
        kind: str | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> JobPage:
        """List jobs, newest first, from the one after ``after`` on.

        Only those whose request has all of ``metadata``.
        """

    @abstractmethod
    def wait(self, principal: Principal | None, job_id: str, seconds: float) -> FineTuningJob:
        """Return the job once it has ended, or as it is after so many seconds."""

    @abstractmethod
    def events(
        self,
        principal: Principal | None,
        job_id: str,
        kind: str | None = None,
        *,
        after: int = 0,
        limit: int = 100,
    ) -> Sequence[JobEvent]:
        """Return a job's events in order, from the number after ``after`` on."""

    @abstractmethod
    def latest_events(
        self, principal: Principal, job_id: str, *, before: int | None = None, limit: int = 20
    ) -> Sequence[JobEvent]:
        """Return a job's events, newest first, from the number before ``before`` on."""

    @abstractmethod
    def metrics(
        self, principal: Principal | None, job_id: str, kind: str | None = None, *, points: int = 500
    ) -> MetricCurve:
        """Return the metrics of the whole run so far, in at most ``points`` points.

        Where an attempt did steps again, its own count.
        """

    @abstractmethod
    def news(
        self, principal: Principal | None, job_id: str, kind: str | None = None, *, after: int, limit: int
    ) -> tuple[FineTuningJob, Sequence[JobEvent]]:
        """Return a job, and then its events.

        Of a job in a final state, fewer than ``limit`` events are the last there are.
        """


class Training(ABC):
    """Takes requests to train.

    A principal of None is the foreground command on the host: it may name any path of it.
    """

    @property
    @abstractmethod
    def defaults(self) -> TrainingConfig:
        """Return the config that holds where a request says nothing."""

    @abstractmethod
    def submit(
        self,
        principal: Principal | None,
        overrides: Mapping[str, Any],
        *,
        priority: int = 0,
        queue: str = DEFAULT_QUEUE,
        after: Sequence[str] = (),
    ) -> FineTuningJob:
        """Save a job that trains with the defaults and ``overrides`` over them, and ring for a worker.

        ``overrides`` has the keys of TrainingConfig, flat or under ``model``, with JSON's own types. Raises what
        ``Jobs.submit`` raises; ``Invalid`` with every fault of the config, the names in it and the data.
        """

    @abstractmethod
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
        """Save a job as ``submit`` does, but return the job of an equal request where there is one.

        That is one heard since ``since``, where one of the two is a retry.
        """

    @abstractmethod
    def submit_estimate(self, principal: Principal | None, overrides: Mapping[str, Any]) -> FineTuningJob:
        """Save a job that finds what the job of ``submit`` would take; raises what that raises."""

    @staticmethod
    @abstractmethod
    def estimate_of(job: FineTuningJob) -> Estimate | None:
        """Return what an ``estimate`` job found; None as long as it has not ended.

        ``Invalid`` with what validation finds (invalid_data …) or what would end the run; ``Unavailable`` where
        the estimate could not be made; ``Conflict`` (cancelled).
        """

    @abstractmethod
    def resume_run(self, run: UnfinishedRun, overrides: Mapping[str, Any]) -> FineTuningJob:
        """Save a job of the foreground that goes on with ``run``, in its folder, from its newest whole checkpoint.

        ``Conflict`` (run_is_finished, run_is_live), and as ``submit``. The checkpoints are the new job's then.
        """

    @abstractmethod
    def check(self, principal: Principal, overrides: Mapping[str, Any]) -> None:
        """Check a request as ``submit`` does. ``Invalid`` with every fault; nothing is saved."""

    @abstractmethod
    def config_faults(self, principal: Principal | None, overrides: Mapping[str, Any]) -> Sequence[Fault]:
        """Check a request's config over the service's defaults and the version it names; return its faults."""

    @abstractmethod
    def named_faults(self, principal: Principal | None, overrides: Mapping[str, Any]) -> Sequence[Fault]:
        """Return what is wrong with the version, the base model, the data and the place that a request names."""


class Tuning(ABC):
    """Translates fine-tuning jobs from and to OpenAI's dialect."""

    @abstractmethod
    def create(self, principal: Principal, asked: TuningRequest) -> FineTuningJob:
        """Save one job for a request, however often it is sent.

        ``Invalid`` with every fault, by OpenAI's names.
        """

    @abstractmethod
    def config_faults(self, principal: Principal, model: str, config: Mapping[str, Any]) -> Sequence[Fault]:
        """Check the keys of TrainingConfig that a request for that model sets; return their faults."""

    @abstractmethod
    def fine_tuned_model(self, job: FineTuningJob) -> str | None:
        """Return the name of the version that a job published, None if it published none."""

    @abstractmethod
    def checkpoints(self, principal: Principal, job_id: str) -> Sequence[SavedCheckpoint]:
        """List a job's checkpoints, newest first: those that are still kept and that this host sees."""

    @abstractmethod
    def multiplier(self, job: FineTuningJob) -> float:
        """Divide a job's learning rate by the default of its day; of a job that does not hold it, by today's."""


class Execution(ABC):
    """Carries jobs of any kind to their end. Safe to call from many threads."""

    @abstractmethod
    def run_next(
        self,
        owner: str,
        job_id: str | None = None,
        on_event: OnEvent | None = None,
        gpus: str | None = None,
        *,
        is_light: bool = False,
    ) -> bool:
        """Claim a waiting job and carry it as far as it goes; return False if there is none, or when draining.

        One that was to be validated is queued or failed, and waits to be claimed again; one that was queued runs
        in a child process, on the ``gpus`` of this slot (``0,1``; empty: on none; None: on whatever there is).
        ``is_light`` is a slot for light kinds alone. ``on_event`` hears what the child says. ``Unavailable`` if
        the database does not answer.
        """

    @abstractmethod
    def prepare(self, gpus: str | None = None) -> None:
        """Have a spare child for the next job of this thread. To be called each poll interval without one."""

    @abstractmethod
    def dismiss(self) -> None:
        """Leave no spare child of this thread."""

    @abstractmethod
    def watch_leases(self) -> None:
        """Let go of jobs whose owner is lost; forget what is kept no longer. To be called each poll interval."""

    @abstractmethod
    def carry(self, job: FineTuningJob, on_event: OnEvent | None = None) -> FineTuningJob:
        """Carry one job to its end in this process, unless a worker does; return it as it is then."""

    @abstractmethod
    def drain(self) -> None:
        """Claim no more, stop children and give their jobs back. Returns at once; ``run_next`` does it."""
