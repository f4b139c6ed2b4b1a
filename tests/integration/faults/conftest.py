"""The two stacks on which a service runs: nothing to install, and the servers of a company."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from app.core.entities.jobs import JobState
from tests.running_service import Developer, MakeService, Service, wait_until
from tests.servers import PostgresServer, RedisServer

UNFINISHED = (JobState.VALIDATING_FILES, JobState.QUEUED, JobState.RUNNING)


@dataclass
class Stack:
    """``redis`` and ``postgres``: None where files take their place."""

    make_service: MakeService
    settings: dict[str, Any]
    redis: RedisServer | None = None
    postgres: PostgresServer | None = None

    def make(self, **overrides: Any) -> Service:
        return self.make_service(**self.settings, **overrides)

    def lose_messages(self, service: Service) -> None:
        """All that wait in the broker."""
        if self.redis is not None:
            self.redis.flush()
            return
        for message in (service.settings.instance_dir / "broker").iterdir():
            message.unlink(missing_ok=True)  # a worker may be faster

    @contextmanager
    def broker_away(self, service: Service) -> Iterator[None]:
        """It takes no message in the block, and nobody gets one from it."""
        if self.redis is not None:
            with self.redis.away():
                yield
            return
        folder = service.settings.instance_dir / "broker"
        folder.rename(folder.with_name("broker-away"))
        yield
        folder.with_name("broker-away").rename(folder)


SQLITE = pytest.param("SQLite and files")
POSTGRES = pytest.param("PostgreSQL and Redis", marks=(pytest.mark.postgres, pytest.mark.redis))


@pytest.fixture(params=[SQLITE, POSTGRES])
def stack(request: pytest.FixtureRequest, make_service: MakeService) -> Iterator[Stack]:
    if request.param == "SQLite and files":
        yield Stack(make_service, {})
        return
    redis, postgres = (request.getfixturevalue(f"{name}_server") for name in ("redis", "postgres"))
    redis.flush()
    database = request.getfixturevalue("postgres_database")
    yield Stack(make_service, {"redis_url": redis.url, "database_url": database}, redis, postgres)


def wait_for_all(service: Service, seconds: float) -> None:
    """Until no job waits or runs."""

    def done() -> bool:
        counts = service.services.monitoring.job_counts()
        return not any(counts[state] for state in UNFINISHED)

    wait_until(done, service.log, seconds)


def attempts_of(service: Service, job_id: str) -> list[str]:
    """What its trainers marked, outside the database."""
    return [word for word, _ in service.marks(job_id)]


def steps_of(service: Service, job_id: str) -> list[int]:
    """That its events tell of, in their order."""
    events = service.services.job_records.events(Developer, job_id, limit=1000)
    return [event.data["step"] for event in events if event.type == "metrics"]


def check_taken_up_once(service: Service, ids: list[str], model_name: str) -> None:
    """Each job succeeded, in attempts that never overlapped, and published one version, whole and alone."""
    jobs = [service.job(job_id) for job_id in ids]
    assert {job.state for job in jobs} == {JobState.SUCCEEDED}, [job.error for job in jobs if job.error]
    for job in jobs:
        marks = attempts_of(service, job.id)
        assert set(marks) == {"start", "end"}
        assert marks[-1] == "end"
        assert marks.count("start") <= job.attempts
        assert job.attempts > 1 or marks == ["start", "end"]
        numbers = [event.seq for event in service.services.job_records.events(Developer, job.id, limit=1000)]
        assert numbers == list(range(1, len(numbers) + 1))
    versions = service.services.models.versions(Developer, model_name)
    assert sorted(version.job_id or "" for version in versions) == sorted(ids)
    assert {version.id for version in versions} == {job.model_version_id for job in jobs}
    assert sorted(version.number for version in versions) == list(range(1, len(ids) + 1))
    published = {path.name for path in (service.settings.models_dir / "registry").iterdir()}
    assert {name for name in published if not name.startswith(".")} == {version.artifacts for version in versions}
    assert not trainers_of(service)


def trainers_of(service: Service) -> list[psutil.Process]:
    """All that are at work on jobs of this service, whoever their parent is."""
    place = str(service.settings.results_dir)
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "app.processes.trainer" in command and any(place in word for word in command):
            found.append(process)
    return found


def refusals(service: Service, job_id: str) -> list[int]:
    """The claims whose writes the log says were refused, as another holds the job."""
    by = r" WARNING app\.core\.services\.jobs\.execution \[-\]"
    said = rf"{by} job {job_id}: claim (\d+) walks away: this attempt no longer holds job"
    return [int(fence) for fence in re.findall(said, service.whole_log())]
