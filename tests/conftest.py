"""Shared fixtures: settings under tmp_path, and real Redis, PostgreSQL and Chromium where they are installed.

A program that is missing skips the tests that need it, and fails them under ``CI=true``.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import hypothesis
import psycopg
import pytest
import redis

from app.bootstrap import Settings, load_settings

MARKED_FIXTURES = {
    "redis_url": "redis",
    "postgres_url": "postgres",
    "new_postgres_database": "postgres",
    "postgres_database": "postgres",
    "chromium": "chromium",
}
START_SECONDS = 30

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
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis without persistence, shared by the session: a test that wants it empty flushes it."""
    program = shutil.which("redis-server") or _missing("redis-server", "redis-server")
    folder = tmp_path_factory.mktemp("redis")

    def command(port: int) -> list[str]:
        options = {"--port": port, "--bind": "127.0.0.1", "--save": "", "--appendonly": "no", "--dir": folder}
        return [program, *(str(word) for option in options.items() for word in option)]

    def ready(port: int) -> bool:
        with suppress(redis.ConnectionError), redis.Redis(port=port) as client:
            return bool(client.ping())
        return False

    with _server(command, ready, folder / "redis.log") as port:
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL, shared by the session; ``postgres_database`` is a fresh database on it."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short: a socket's path has 107 bytes
    try:
        prefix = _unprivileged(folder)
        data = folder / "data"
        arguments = [
            *["--pgdata", str(data), "--auth", "trust", "--username", "postgres"],
            *["--encoding", "UTF8", "--no-locale", "--no-sync"],
        ]
        subprocess.run(
            [*prefix, _postgres_program("initdb"), *arguments], check=True, cwd=folder, capture_output=True
        )

        def command(port: int) -> list[str]:
            switches = ["fsync=off", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}"]
            options = [word for switch in switches for word in ("-c", switch)]
            return [*prefix, _postgres_program("postgres"), "-D", str(data), "-p", str(port), *options]

        def ready(port: int) -> bool:
            with suppress(psycopg.OperationalError):
                psycopg.connect(_plain(port, "postgres"), connect_timeout=5).close()
                return True
            return False

        with _server(command, ready, folder / "postgres.log") as port:
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def new_postgres_database(postgres_url: str) -> Callable[[], str]:
    """Each call makes an empty database and answers its URL."""

    def make() -> str:
        server, _, _ = postgres_url.rpartition("/")
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"{server}/{name}"

    return make


@pytest.fixture
def postgres_database(new_postgres_database: Callable[[], str]) -> str:
    return new_postgres_database()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's path."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None) or _missing("chromium", "chromium")


def _missing(program: str, package: str) -> NoReturn:
    reason = f"{program} is not installed (Debian: apt-get install {package})"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _postgres_program(name: str) -> str:
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    return str(installed[-1]) if installed else shutil.which(name) or _missing(name, "postgresql")


def _unprivileged(folder: Path) -> list[str]:
    """PostgreSQL refuses to run as root: then it runs as ``postgres``, in a folder of that user's."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv") or _missing("setpriv", "util-linux")
    try:
        shutil.chown(folder, "postgres", "postgres")
    except LookupError:
        _missing("PostgreSQL's user postgres", "postgresql")
    return [setpriv, "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]


def _plain(port: int, database: str) -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/{database}"


@contextmanager
def _server(command: Callable[[int], list[str]], ready: Callable[[int], bool], log: Path) -> Iterator[int]:
    """Run a server on a free loopback port until the block ends. Another may take the port first: try again."""
    for _ in range(3):
        port = _free_port()
        with log.open("ab") as output:
            process = subprocess.Popen(command(port), stdout=output, stderr=output, cwd=log.parent)
        try:
            if _wait(process, ready, port):
                yield port
                return
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    pytest.fail(f"{command(0)[0]} does not start:\n{log.read_text(errors='replace')[-2000:]}")


def _wait(process: subprocess.Popen[bytes], ready: Callable[[int], bool], port: int) -> bool:
    for _ in range(START_SECONDS * 20):
        if ready(port):
            return process.poll() is None
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            return False
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
