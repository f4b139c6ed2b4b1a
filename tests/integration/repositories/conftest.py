"""The repositories over SQLite and PostgreSQL, and what goes into them."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine

from app.core.entities.jobs import FineTuningJob, JobState
from app.core.entities.metrics import MetricCurve, MetricPoint
from app.core.entities.models import ModelVersion
from app.repositories.database import configure_engine
from tests.databases import Repositories, copy_database, fill_empty

SQL = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
START = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


def rounded(curve: MetricCurve) -> tuple[int, list[MetricPoint]]:
    """A mean of means is the mean of all, but for the last bits."""
    of_points = [
        {name: f._replace(mean=None if f.mean is None else round(f.mean, 6)) for name, f in p.figures.items()}
        for p in curve.points
    ]
    return curve.width, [replace(p, figures=figures) for p, figures in zip(curve.points, of_points, strict=True)]


@pytest.fixture(scope="session")
def postgres_template(new_postgres_database: Callable[..., str]) -> str:
    """What ``database_template`` is, on PostgreSQL."""
    url = new_postgres_database()
    engine = create_engine(url)
    fill_empty(engine)
    engine.dispose()
    return url


@pytest.fixture
def open_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    """``open_engine(kind)``: on a database with the projects ``default`` and ``other``, or on an empty one."""
    with ExitStack() as opened:

        def open_one(kind: str, *, empty: bool = False) -> Engine:
            if kind == "postgres":
                template = None if empty else request.getfixturevalue("postgres_template")
                engine = create_engine(request.getfixturevalue("new_postgres_database")(template), pool_size=10)
                configure_engine(engine)
            elif empty:
                engine = create_engine(f"sqlite:///{tmp_path / 'app.db'}", pool_size=10)
                configure_engine(engine)
            else:
                engine = copy_database(request.getfixturevalue("database_template"), tmp_path / "app.db")
            opened.callback(engine.dispose)
            return engine

        yield open_one


@pytest.fixture(params=SQL)
def empty_engine(request: pytest.FixtureRequest, open_engine: Callable[..., Engine]) -> Engine:
    return open_engine(request.param, empty=True)


@pytest.fixture(params=SQL)
def engine(request: pytest.FixtureRequest, open_engine: Callable[..., Engine]) -> Engine:
    return open_engine(request.param)


@pytest.fixture
def repositories(engine: Engine) -> Repositories:
    """With the projects ``default`` and ``other``."""
    return Repositories(engine)


@pytest.fixture
def make_job() -> Callable[..., FineTuningJob]:
    """Each a second younger than the one before."""
    ticks = itertools.count()

    def make(**changes: Any) -> FineTuningJob:
        tick = next(ticks)
        values: dict[str, Any] = {
            "id": f"job-{tick:03d}",
            "project_id": "default",
            "kind": "train",
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


@pytest.fixture
def jobs(repositories):
    return repositories.jobs


@pytest.fixture
def add(jobs, make_job):
    """``add(…)`` saves a job and returns its id."""

    def make(**changes):
        job = make_job(**changes)
        jobs.add([job])
        return job.id

    return make
