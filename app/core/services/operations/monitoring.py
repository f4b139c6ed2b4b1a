"""Whether the service can do its work, and how much of it there is."""

from collections.abc import Mapping

from app.core.entities.jobs import JobState
from app.core.errors import Unavailable
from app.core.interfaces.operations import EngineClient, JobQueue
from app.core.interfaces.services.operations import Monitoring, Readiness
from app.core.interfaces.storage import DatabaseHealth, JobRepository


class MonitoringService(Monitoring):
    def __init__(
        self, database: DatabaseHealth, queue: JobQueue, engines: EngineClient, jobs: JobRepository
    ) -> None:
        self._database = database
        self._queue = queue
        self._engines = engines
        self._jobs = jobs

    def ready(self) -> Readiness:
        reasons = [reason for reason in (self._database.check(), self._queue.check()) if reason]
        return Readiness(not reasons, reasons, self._engines.resident())

    def database_problem(self) -> str | None:
        return self._database.check()

    def require_database(self) -> None:
        if problem := self._database.check():
            raise Unavailable(problem, code="database_not_ready")

    def job_counts(self) -> Mapping[JobState, int]:
        return self._jobs.count_by_state()
