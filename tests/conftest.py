"""Shared fixtures: settings under tmp_path, and real Redis, PostgreSQL and Chromium where they are installed.

A program that is missing skips the tests that need it, and fails them under ``CI=true``.
"""

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import psycopg
import pytest
from sqlalchemy import Engine, create_engine, event

from app.bootstrap import Settings, load_settings
from tests.databases import copy_database, fill_empty
from tests.servers import PostgresServer, RedisServer, missing

MARKED_FIXTURES = {
    "redis_server": "redis",
    "redis_url": "redis",
    "postgres_server": "postgres",
    "postgres_url": "postgres",
    "new_postgres_database": "postgres",
    "postgres_database": "postgres",
    "chromium": "chromium",
}

# How long an example takes is no assertion: a busy machine would fail it.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in MARKED_FIXTURES:
                item.add_marker(MARKED_FIXTURES[fixture])


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """Neither the shell's variables nor a ``.env`` reach a test or a process that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        for field in Settings.model_fields:
            patch.delenv(field.upper(), raising=False)
            patch.delenv(field, raising=False)
        patch.setenv("DOTENV_PATH", os.devnull)
        patch.setenv("FLASK_SKIP_DOTENV", "1")  # the flask command reads .env by itself
        yield


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Everything under ``tmp_path``, SQLite, the filesystem broker, any free port."""
    folders = {name: tmp_path / name for name in ("instance", "data", "models", "results")}
    for folder in folders.values():
        folder.mkdir()
    return load_settings(port=0, **{f"{name}_dir": folder for name, folder in folders.items()})


@pytest.fixture(scope="session")
def database_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy, with the projects ``default`` and ``other``."""
    file = tmp_path_factory.mktemp("template") / "app.db"
    engine = create_engine(f"sqlite:///{file}")
    fill_empty(engine)
    engine.dispose()
    return file


@pytest.fixture(scope="session")
def moving_engine(database_template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, list[Path]]:
    """An engine, and the file that it opens: one for all tests, as each engine compiles its statements anew."""
    place = [tmp_path_factory.mktemp("unused") / "app.db"]
    engine = copy_database(database_template, place[0])

    def connect(_dialect: object, _record: object, arguments: list[str], _options: object) -> None:
        arguments[0] = str(place[0])

    event.listen(engine, "do_connect", connect)
    return engine, place


@pytest.fixture
def database(
    moving_engine: tuple[Engine, list[Path]], database_template: Path, tmp_path: Path
) -> Iterator[Engine]:
    """A SQLite database of the test's own, with the projects ``default`` and ``other``."""
    engine, place = moving_engine
    place[0] = tmp_path / "copied.db"
    shutil.copyfile(database_template, place[0])
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real Redis without persistence, shared by the session: a test that wants it empty flushes it."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    return redis_server.url


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL, shared by the session; ``postgres_database`` is a fresh database on it."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    try:
        with PostgresServer(folder) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    return postgres_server.url


@pytest.fixture(scope="session")
def new_postgres_database(postgres_server: PostgresServer) -> Callable[..., str]:
    """Each call makes a database and answers its URL: an empty one, or a copy of another that nobody has open."""

    def make(template: str | None = None) -> str:
        name = f"test_{uuid.uuid4().hex}"
        copied = "" if template is None else f" TEMPLATE {template.rpartition('/')[2]}"
        with psycopg.connect(postgres_server.url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}{copied}")
        return postgres_server.database(name)

    return make


@pytest.fixture
def postgres_database(new_postgres_database: Callable[..., str]) -> str:
    return new_postgres_database()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's path."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None) or missing("chromium", "chromium")
