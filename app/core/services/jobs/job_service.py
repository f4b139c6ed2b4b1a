"""Jobs of every kind: submitted, cancelled, paused, tried again."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from app.core.entities.identity import Principal
from app.core.entities.jobs import DEFAULT_QUEUE, FINAL_STATES, FineTuningJob, JobState, Step
from app.core.entities.limits import NOTHING, ProjectLimits, ProjectUse
from app.core.errors import AppError, Conflict, Fault, Invalid
from app.core.interfaces.job_kinds import Draft, JobKind
from app.core.interfaces.operations import JobQueue
from app.core.interfaces.services.jobs import Jobs
from app.core.interfaces.storage import JobRepository
from app.core.services.jobs.job_records import JobRecords, no_job

LONGEST_CHAIN = 10


class JobService(Jobs):
    """``queues`` are those that a job may name; ``limits`` hold for projects that have none of their own."""

    def __init__(
        self,
        jobs: JobRepository,
        records: JobRecords,
        kinds: Mapping[str, JobKind],
        queue: JobQueue,
        queues: Sequence[str],
        limits: ProjectLimits,
    ) -> None:
        self._jobs = jobs
        self._records = records
        self._kinds = kinds
        self._queue = queue
        self._queues = queues
        self._limits = limits

    @property
    def kinds(self) -> Sequence[str]:
        return list(self._kinds)

    def submit(
        self,
        principal: Principal,
        kind: str,
        request: Mapping[str, Any],
        /,
        *,
        priority: int = 0,
        queue: str = DEFAULT_QUEUE,
        after: Sequence[str] = (),
        since: datetime | None = None,
        foreground: bool = False,
        **of_job: Any,
    ) -> FineTuningJob:
        if not foreground:
            principal = _away_from_host(principal)
        found = self._kind(kind)
        self._check_queue(queue)
        draft = found.check(principal, request)
        of_job["request"] = {**draft.request, **of_job.get("request", {})}
        job = self._job(principal, found, draft, priority=priority, queue=queue, after=list(after), **of_job)
        return self._add([job], found.needs, since)[0]

    def submit_chain(
        self, principal: Principal, steps: Sequence[Step], *, priority: int = 0, queue: str = DEFAULT_QUEUE
    ) -> Sequence[FineTuningJob]:
        principal = _away_from_host(principal)
        self._check_queue(queue)
        if not 1 <= len(steps) <= LONGEST_CHAIN:
            fault = Fault("jobs", "bad_length", f"must have 1 to {LONGEST_CHAIN} steps")
            raise Invalid("the request has faults: nothing was started", faults=[fault])
        jobs: dict[str, FineTuningJob] = {}
        drafts: dict[str, Draft] = {}
        faults: list[Fault] = []
        needs = NOTHING
        for place, step in enumerate(steps):
            where = f"jobs.{place}"
            try:
                if step.name in jobs:
                    raise Invalid(f"the name {step.name!r} stands twice", code="name_taken")
                if unknown := sorted({*step.after, *_named(step.request).values()} - jobs.keys()):
                    raise Invalid(f"no step before it is named {unknown[0]!r}", code="unknown_step")
                found = self._kind(step.kind)
                inputs = {key: jobs[name].id for key, name in _named(step.request).items()}
                stand_ins = {key: _stand_in(drafts[name], key) for key, name in _named(step.request).items()}
                draft = drafts[step.name] = found.check(principal, {**step.request, **stand_ins})
                if inputs:  # the kind checks it once more when they are there
                    config = {**draft.config, **{key: step.request[key] for key in inputs}}
                    draft = replace(draft, config=config, dataset_digest="", dataset_id=None, dataset_number=None)
            except AppError as error:
                faults += [Fault(f"{where}.{one.where}", one.code, one.message) for one in error.faults] or [
                    Fault(where, error.code, error.message)
                ]
                continue
            after = list(dict.fromkeys([*(jobs[name].id for name in step.after), *inputs.values()]))
            of_job = {"request": draft.request, "inputs": inputs, "priority": priority, "queue": queue}
            jobs[step.name] = self._job(principal, found, draft, after=after, **of_job)
            needs = needs.plus(found.needs)
        if faults:
            raise Invalid("the chain has faults: nothing was started", faults=faults)
        return self._add(list(jobs.values()), needs, None)

    def retry(self, principal: Principal, job_id: str, kind: str | None = None) -> FineTuningJob:
        job = self._records.get(principal, job_id, kind)
        if job.state not in (JobState.FAILED, JobState.CANCELLED):
            message = f"the job is {job.state.value}: only one that has failed or was cancelled is tried again"
            raise Conflict(message, code="nothing_to_retry")
        if job.inputs:
            message = "the jobs that it waits for made nothing: submit the whole chain again"
            raise Conflict(message, code="nothing_to_retry")
        request = {key: value for key, value in job.config.items() if key != "output_dir"}
        of_job: dict[str, Any] = {"priority": job.priority, "queue": job.queue, "request": job.request}
        return self.submit(principal, job.kind, request, retry_of=job.id, **of_job)

    def cancel(self, principal: Principal, job_id: str, kind: str | None = None) -> FineTuningJob:
        self._records.get(principal, job_id, kind)
        job = self._jobs.request_cancel(principal.project_id, job_id)
        if job is None:
            raise no_job(job_id)
        if job.state in FINAL_STATES - {JobState.CANCELLED}:
            raise Conflict(f"the job has {job.state.value}: there is nothing to cancel", code="job_is_final")
        return job

    def pause(self, principal: Principal, job_id: str, kind: str | None = None) -> FineTuningJob:
        job = self._records.get(principal, job_id, kind)
        if not self._kind(job.kind).can_pause:
            message = f"a job of kind {job.kind} cannot pause: cancel it, and retry it later"
            raise Conflict(message, code="cannot_pause")
        if job.created_by is None:
            message = "this job is a command's in the foreground: end that with Ctrl-C, go on with --resume"
            raise Conflict(message, code="foreground_job")
        paused = self._jobs.request_pause(job.project_id, job.id)
        if paused is None:
            raise no_job(job_id)
        return paused

    def resume(self, principal: Principal, job_id: str, kind: str | None = None) -> FineTuningJob:
        self._records.get(principal, job_id, kind)
        job = self._jobs.resume(principal.project_id, job_id)
        if job is None:
            raise no_job(job_id)
        self._queue.ring(job.id, job.queue)
        return job

    def _kind(self, name: str) -> JobKind:
        if name not in self._kinds:
            message = f"there is no kind {name[:80]!r} of job; there are: {', '.join(self._kinds)}"
            raise Invalid(message, code="unknown_kind", faults=[Fault("kind", "unknown_kind", message)])
        return self._kinds[name]

    def _check_queue(self, queue: str) -> None:
        if queue not in self._queues:
            fault = Fault("queue", "unknown_queue", f"must be one of: {', '.join(self._queues)}")
            raise Invalid("the request has faults: nothing was started", faults=[fault])

    @staticmethod
    def _job(principal: Principal, kind: JobKind, draft: Draft, **of_job: Any) -> FineTuningJob:
        return FineTuningJob(
            id=f"{kind.id_prefix}-{secrets.token_hex(12)}",
            project_id=principal.project_id,
            kind=kind.name,
            name=draft.name,
            state=JobState.VALIDATING_FILES if kind.is_validated else JobState.QUEUED,
            config=draft.config,
            created_by=None if principal.is_host else principal.user_id,
            created_at=datetime.now(UTC),
            base_model=draft.base_model,
            dataset_digest=draft.dataset_digest,
            dataset_id=draft.dataset_id,
            dataset_number=draft.dataset_number,
            is_light=kind.is_light,
            **of_job,
        )

    def _add(
        self, jobs: Sequence[FineTuningJob], needs: ProjectUse, since: datetime | None
    ) -> Sequence[FineTuningJob]:
        added = self._jobs.add(jobs, self._limits, since=since, needs=needs)
        for job in added:
            self._queue.ring(job.id, job.queue)
        return added


def _away_from_host(principal: Principal) -> Principal:
    """Return who asks for a job that a worker takes up: on any host, so that no path of this one may be named."""
    return replace(principal, is_host=False)


def _named(request: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the keys of a step's request that another step makes, with that step's name."""
    return {key: value[1:] for key, value in request.items() if isinstance(value, str) and value.startswith("$")}


def _stand_in(draft: Draft, key: str) -> Any:
    """Return what a later step is checked with: the version that an earlier one begins with, or its base model."""
    if key in ("dataset_id", "from_version"):
        return draft.config.get(key)
    return draft.base_model
