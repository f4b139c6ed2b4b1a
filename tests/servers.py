"""Real Redis and PostgreSQL on free loopback ports, which a test may restart: they come back where they were.

A program that is missing skips the tests that need it, and fails them under ``CI=true``.
"""

import os
import shutil
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn, Self

import psutil
import psycopg
import pytest
import redis

START_SECONDS = 30
STOP_SECONDS = 10


class Server(ABC):
    """A context, in which it runs. ``folder`` is there already."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    @abstractmethod
    def url(self) -> str:
        """What a client is told."""

    @abstractmethod
    def _command(self, port: int) -> list[str]:
        """That runs it in the foreground."""

    @abstractmethod
    def _answers(self, port: int) -> bool:
        """Whether it takes requests by now."""

    def __enter__(self) -> Self:
        for _ in range(3):  # another may take the port first
            self.port = free_port()
            if self._start():
                return self
        pytest.fail(f"{self._command(0)[0]} does not start:\n{self._log.read_text(errors='replace')[-2000:]}")

    def __exit__(self, *_: object) -> None:
        self.stop()

    def restart(self) -> None:
        """Away and back, on the same port; returns when it answers. Whoever was connected is cut off."""
        with self.away():
            pass

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nobody answers in the block; then it is back."""
        self.stop()
        yield
        assert self._start(), self._log.read_text(errors="replace")[-2000:]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """In the block nobody is answered, nor told that nobody is there."""
        assert self._process is not None
        leader = psutil.Process(self._process.pid)
        processes = [leader, *leader.children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start(self) -> bool:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command(self.port), stdout=output, stderr=output, cwd=self._folder
            )
        for _ in range(START_SECONDS * 20):
            if self._answers(self.port):
                return self._process.poll() is None
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
                return False
        self.stop()
        return False


class RedisServer(Server):
    """Without persistence: a restart empties it."""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def flush(self) -> None:
        with redis.Redis(port=self.port) as client:
            client.flushall()

    def _command(self, port: int) -> list[str]:
        program = shutil.which("redis-server") or missing("redis-server", "redis-server")
        options = {"--port": port, "--bind": "127.0.0.1", "--save": "", "--appendonly": "no"}
        words = [str(word) for option in options.items() for word in option]
        return [program, *words, "--dir", str(self._folder)]

    def _answers(self, port: int) -> bool:
        with suppress(redis.ConnectionError), redis.Redis(port=port) as client:
            return bool(client.ping())
        return False


class PostgresServer(Server):
    """Its user is ``postgres``, without a password. ``folder``'s path is short: a socket's has 107 bytes."""

    def __enter__(self) -> Self:
        self._prefix = _unprivileged(self._folder)
        arguments = [
            *["--pgdata", str(self._folder / "data"), "--auth", "trust", "--username", "postgres"],
            *["--encoding", "UTF8", "--no-locale", "--no-sync"],
        ]
        command = [*self._prefix, _postgres_program("initdb"), *arguments]
        subprocess.run(command, check=True, cwd=self._folder, capture_output=True)
        return super().__enter__()

    @property
    def url(self) -> str:
        return self.database("postgres")

    def database(self, name: str) -> str:
        """The URL of one that is there."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"

    def _command(self, port: int) -> list[str]:
        switches = ["fsync=off", "listen_addresses=127.0.0.1", f"unix_socket_directories={self._folder}"]
        options = [word for switch in switches for word in ("-c", switch)]
        data = str(self._folder / "data")
        return [*self._prefix, _postgres_program("postgres"), "-D", data, "-p", str(port), *options]

    def _answers(self, port: int) -> bool:
        with suppress(psycopg.OperationalError):
            psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", connect_timeout=5).close()
            return True
        return False


def missing(program: str, package: str) -> NoReturn:
    reason = f"{program} is not installed (Debian: apt-get install {package})"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _postgres_program(name: str) -> str:
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    return str(installed[-1]) if installed else shutil.which(name) or missing(name, "postgresql")


def _unprivileged(folder: Path) -> list[str]:
    """PostgreSQL refuses to run as root: then it runs as ``postgres``, in a folder of that user's."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv") or missing("setpriv", "util-linux")
    try:
        shutil.chown(folder, "postgres", "postgres")
    except LookupError:
        missing("PostgreSQL's user postgres", "postgresql")
    return [setpriv, "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
