"""Whether the service can do its work, and how much of it there is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.core.entities.jobs import JobState
from app.core.errors import Unavailable
from app.core.interfaces.operations import EngineClient, JobQueue
from app.core.interfaces.storage import DatabaseHealth, JobRepository


@dataclass(frozen=True, slots=True)
class Readiness:
    """``reasons`` say why it is not ready. ``engines`` are the base models that answer: none is no reason."""

    ready: bool
    reasons: Sequence[str]
    engines: Sequence[str]


class MonitoringService:
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
        """What to do, unless the database answers and has this code's schema."""
        return self._database.check()

    def require_database(self) -> None:
        """``Unavailable`` (database_not_ready) with what to do."""
        if problem := self._database.check():
            raise Unavailable(problem, code="database_not_ready")

    def job_counts(self) -> Mapping[JobState, int]:
        """Over all projects."""
        return self._jobs.count_by_state()
