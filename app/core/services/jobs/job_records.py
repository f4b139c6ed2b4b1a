"""Jobs of every kind, and what they have said, as those who ask for them see them."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from app.core.entities.identity import Principal
from app.core.entities.jobs import FINAL_STATES, FineTuningJob, JobEvent, JobPage, JobState
from app.core.entities.metrics import MetricCurve
from app.core.errors import Fault, Invalid, NotFound
from app.core.interfaces.services.jobs import JobReader
from app.core.interfaces.storage import JobRepository

JOB_ID = re.compile(r"[a-z]+-[0-9a-f]{24}")
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.05, 0.5  # between looks at a job that somebody waits for


class JobRecords(JobReader):
    def __init__(self, jobs: JobRepository) -> None:
        self._jobs = jobs

    def get(self, principal: Principal, job_id: str, kind: str | None = None) -> FineTuningJob:
        job = self._jobs.get(principal.project_id, job_id) if JOB_ID.fullmatch(job_id) else None
        if job is None or kind not in (None, job.kind):
            raise no_job(job_id)
        return job

    def list(
        self,
        principal: Principal,
        *,
        state: JobState | None = None,
        kind: str | None = None,
        metadata: Mapping[str, str] | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> JobPage:
        if after is not None and not JOB_ID.fullmatch(after):
            raise Invalid("after is not the id of a job", faults=[Fault("after", "not_a_job_id", "not a job id")])
        wanted: dict[str, Any] = {"state": state, "kind": kind, "metadata": metadata or {}}
        jobs = self._jobs.list(principal.project_id, limit=limit + 1, after=after, **wanted)
        return JobPage(jobs[:limit], jobs[limit - 1].id if len(jobs) > limit else None)

    def wait(self, principal: Principal, job_id: str, seconds: float) -> FineTuningJob:
        until, pause = time.monotonic() + seconds, FIRST_LOOK_SECONDS
        job = self.get(principal, job_id)
        while job.state not in FINAL_STATES and time.monotonic() < until:
            time.sleep(min(pause, max(0.0, until - time.monotonic())))
            pause = min(1.2 * pause, LONGEST_LOOK_SECONDS)  # many who wait do not ask the database all the time
            job = self.get(principal, job_id)
        return job

    def events(
        self,
        principal: Principal,
        job_id: str,
        kind: str | None = None,
        *,
        after: int = 0,
        limit: int = 100,
    ) -> Sequence[JobEvent]:
        return self.news(principal, job_id, kind, after=after, limit=limit)[1]

    def latest_events(
        self, principal: Principal, job_id: str, *, before: int | None = None, limit: int = 20
    ) -> Sequence[JobEvent]:
        job = self.get(principal, job_id)
        return self._jobs.latest_events(job.project_id, job.id, before=before, limit=limit)

    def metrics(
        self, principal: Principal, job_id: str, kind: str | None = None, *, points: int = 500
    ) -> MetricCurve:
        job = self.get(principal, job_id, kind)
        return self._jobs.metrics(job.project_id, job.id, most=points)

    def news(
        self, principal: Principal, job_id: str, kind: str | None = None, *, after: int, limit: int
    ) -> tuple[FineTuningJob, Sequence[JobEvent]]:
        job = self.get(principal, job_id, kind)
        return job, self._jobs.events(job.project_id, job.id, after=after, limit=limit)


def no_job(job_id: str) -> NotFound:
    """Return what is said of a job that the project does not have."""
    return NotFound(f"no job {job_id[:80]!r} in this project", code="job_not_found")
