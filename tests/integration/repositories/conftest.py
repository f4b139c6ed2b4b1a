"""The repositories over memory, SQLite and PostgreSQL, and what goes into them."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine

from app.core.entities.jobs import FineTuningJob, JobState
from app.core.entities.metrics import MetricCurve, MetricPoint
from app.core.entities.models import ModelVersion
from app.core.interfaces.idempotency import IdempotencyRepository
from app.core.interfaces.identity import KeyRepository, SessionRepository, UserRepository
from app.core.interfaces.storage import (
    AuditRepository,
    DatasetRepository,
    JobRepository,
    ModelVersionRepository,
    UsageRepository,
)
from app.core.interfaces.webhooks import WebhookRepository
from app.repositories.api_keys import SqlKeyRepository
from app.repositories.audit import SqlAuditRepository
from app.repositories.database import Database, configure_engine, migrate_empty
from app.repositories.datasets import SqlDatasetRepository
from app.repositories.idempotency import SqlIdempotencyRepository
from app.repositories.jobs import SqlJobRepository
from app.repositories.memory import (
    MemoryAuditRepository,
    MemoryDatasetRepository,
    MemoryModelVersionRepository,
    MemoryUsageRepository,
)
from app.repositories.memory_idempotency import MemoryIdempotencyRepository
from app.repositories.memory_identity import MemoryKeyRepository, MemorySessionRepository, MemoryUserRepository
from app.repositories.memory_jobs import MemoryJobRepository
from app.repositories.memory_webhooks import MemoryWebhookRepository
from app.repositories.model_versions import SqlModelVersionRepository
from app.repositories.sessions import SqlSessionRepository
from app.repositories.tables import ProjectRow
from app.repositories.usage import SqlUsageRepository
from app.repositories.users import SqlUserRepository
from app.repositories.webhooks import SqlWebhookRepository

SQL = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
START = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


@dataclass(frozen=True)
class Repositories:
    jobs: JobRepository
    versions: ModelVersionRepository
    users: UserRepository
    datasets: DatasetRepository
    usage: UsageRepository
    audit: AuditRepository
    keys: KeyRepository
    sessions: SessionRepository
    webhooks: WebhookRepository
    kept_requests: IdempotencyRepository

    def claim(self, job_id: str | None = None) -> int:
        """The fence of a claim that must succeed."""
        claim = self.jobs.claim("worker", 30, job_id)
        assert claim is not None
        return claim.fence


def rounded(curve: MetricCurve) -> tuple[int, list[MetricPoint]]:
    """A mean of means is the mean of all, but for the last bits."""
    of_points = [
        {name: f._replace(mean=None if f.mean is None else round(f.mean, 6)) for name, f in p.figures.items()}
        for p in curve.points
    ]
    return curve.width, [replace(p, figures=figures) for p, figures in zip(curve.points, of_points, strict=True)]


@pytest.fixture
def open_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], Engine]]:
    with ExitStack() as opened:

        def open_one(kind: str) -> Engine:
            if kind == "sqlite":
                url = f"sqlite:///{tmp_path / 'app.db'}"
            else:
                url = request.getfixturevalue("new_postgres_database")()
            engine = create_engine(url, pool_size=10)
            opened.callback(engine.dispose)
            configure_engine(engine)
            return engine

        yield open_one


@pytest.fixture(params=SQL)
def empty_engine(request: pytest.FixtureRequest, open_engine: Callable[[str], Engine]) -> Engine:
    return open_engine(request.param)


@pytest.fixture(params=SQL)
def sql(request: pytest.FixtureRequest, open_engine: Callable[[str], Engine]) -> Repositories:
    return _over_sql(open_engine(request.param))


@pytest.fixture(params=["memory", *SQL])
def repositories(request: pytest.FixtureRequest, open_engine: Callable[[str], Engine]) -> Repositories:
    """With the projects ``default`` and ``other``."""
    if request.param == "memory":
        versions = MemoryModelVersionRepository()
        datasets = MemoryDatasetRepository()
        users = MemoryUserRepository(["default", "other"])
        return Repositories(
            MemoryJobRepository(versions, datasets, ["default", "other"]),
            versions,
            users,
            datasets,
            MemoryUsageRepository(),
            MemoryAuditRepository(),
            MemoryKeyRepository(),
            MemorySessionRepository(),
            MemoryWebhookRepository(),
            MemoryIdempotencyRepository(),
        )
    return _over_sql(open_engine(request.param))


def _over_sql(engine: Engine) -> Repositories:
    migrate_empty(engine)
    with Database(engine).write() as session:
        session.add(ProjectRow(id="other", name="other", created_at=START))
    return Repositories(
        SqlJobRepository(engine),
        SqlModelVersionRepository(engine),
        SqlUserRepository(engine),
        SqlDatasetRepository(engine),
        SqlUsageRepository(engine),
        SqlAuditRepository(engine),
        SqlKeyRepository(engine),
        SqlSessionRepository(engine),
        SqlWebhookRepository(engine),
        SqlIdempotencyRepository(engine),
    )


@pytest.fixture
def make_job() -> Callable[..., FineTuningJob]:
    """Each a second younger than the one before."""
    ticks = itertools.count()

    def make(**changes: Any) -> FineTuningJob:
        tick = next(ticks)
        values: dict[str, Any] = {
            "id": f"job-{tick:03d}",
            "project_id": "default",
            "name": "support",
            "state": JobState.QUEUED,
            "base_model": "tiny",
            "config": {"learning_rate": 2e-4, "lora": {"r": 8}, "名": ["é", None, True]},
            "dataset_digest": "d" * 64,
            "created_by": "user-1",
            "created_at": START + timedelta(seconds=tick),
        }
        return FineTuningJob(**{**values, **changes})

    return make


@pytest.fixture
def make_version() -> Callable[..., ModelVersion]:
    def make(job: FineTuningJob, **changes: Any) -> ModelVersion:
        values: dict[str, Any] = {
            "id": f"version-of-{job.id}",
            "project_id": job.project_id,
            "name": "assistant",
            "number": 0,
            "base_model": job.base_model,
            "template_hash": "t" * 64,
            "artifacts": f"version-of-{job.id}",
            "job_id": job.id,
            "dataset_digest": job.dataset_digest,
            "config": job.config,
            "metrics": {"eval_loss": 0.25},
            "created_by": job.created_by,
            "created_at": job.created_at,
        }
        return ModelVersion(**{**values, **changes})

    return make
