"""``python run.py``: web, worker and engine under one parent, on one machine.

A child that dies is started again. Ctrl-C or SIGTERM ends all within ten seconds (drain_seconds and four) and
leaves no process; a second one ends them at once.
"""

import argparse
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import time
import urllib.request
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import TextIO
from urllib.error import URLError

from app import create_app
from app.bootstrap import Settings, SettingsError, load_settings, one_line, prepare_instance
from app.core.errors import AppError
from app.implementations.queue.process_tree import kill_marked, kill_session
from app.processes.children import Child, say
from app.processes.engines import OwnEngineProcesses
from app.utils.addresses import is_loopback
from app.utils.project import ROOT, python_path

MARK = "RUN_PY_MARK"  # in the environment of every process below this one
GRACE_SECONDS = 2.0  # beyond what the worker has for its trainers
LOOK_SECONDS = 0.1
READY_SECONDS = 0.5  # between two questions whether the service is ready
ENGINE_TRIES = 3  # failures in a row after which the service is called ready without its engine
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    describe = "Starts web, worker and engine, and ends them at Ctrl-C. Its settings are in .env.example."
    argparse.ArgumentParser(prog="run.py", description=describe).parse_args()
    try:
        settings = load_settings()
        _check_address(settings)
        listener = _listen(settings)
        lock = _lock(settings.instance_dir)
        password = prepare_instance(create_app(settings))
    except (SettingsError, AppError) as error:
        print(f"Error: {one_line(error)}", file=sys.stderr)
        return 1
    if password is not None:
        print(f"the first user is admin, with the password {password}", flush=True)
    with lock:
        return Supervisor(settings, listener).run()


def _lock(instance_dir: Path) -> TextIO:
    """Held until this process ends, however it ends: a second run.py here would take the engine from the first."""
    try:
        instance_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (instance_dir / "run.lock").open("w")
    except OSError as error:
        raise SettingsError(f"instance_dir: cannot be written to ({error.strerror})") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise SettingsError("another run.py runs on this INSTANCE_DIR: stop it, or set another one") from None
    return lock


def _check_address(settings: Settings) -> None:
    """Who opens the service to a network has chosen the key that signs its tokens, and keeps it."""
    if settings.secret_key is None and not is_loopback(settings.host):
        raise SettingsError(
            f"HOST={settings.host} is reachable from beyond this host: set SECRET_KEY to 32 random bytes or more "
            "(openssl rand -base64 48), or HOST=127.0.0.1"
        )


def _listen(settings: Settings) -> socket.socket:
    """Held here for the life of the service, so that the address is ours also while web starts again."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise SettingsError(
            f"cannot listen on {where} ({error.strerror}): stop what listens there, or set HOST and PORT"
        ) from None


class Supervisor:
    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._mark = secrets.token_hex(16)
        self._signals = 0
        environment = {**os.environ, "PYTHONPATH": python_path(), MARK: self._mark}
        self._base = _base(listener)
        self._engines = OwnEngineProcesses(settings, environment)
        self._engine = self._engines.always
        self._children = [
            Child(
                "web",
                _web(settings, listener),
                {**environment, "PROMETHEUS_MULTIPROC_DIR": _metrics_folder(settings.instance_dir)},
                descriptors=(listener.fileno(),),
            ),
            Child("worker", WORKER, environment),
            *([self._engine] if self._engine else []),
        ]

    def run(self) -> int:
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        os.chdir(ROOT)
        told = False
        ask_at = 0.0
        try:
            while not self._signals:
                for child in self._children:
                    child.tend()
                self._engines.tend()
                if not told and time.monotonic() >= ask_at:
                    told = self._tell_when_ready()
                    ask_at = time.monotonic() + READY_SECONDS
                time.sleep(LOOK_SECONDS)
        finally:
            self._end()
        return 0

    def _tell_when_ready(self) -> bool:
        # Whatever the address: TRUSTED_HOSTS could not name one of IPv6.
        asked = urllib.request.Request(f"{self._base}/api/v1/monitor/ready", headers={"Host": "localhost"})  # noqa: S310
        try:
            with urllib.request.urlopen(asked, timeout=2) as answer:  # noqa: S310 # nosec B310 # ourselves
                engines = json.load(answer)["engines"]
        except (URLError, OSError, ValueError):
            return False
        engine = self._engine
        if engine is not None and self._settings.engine_base_model not in engines:
            if not engine.explained and engine.failures < ENGINE_TRIES:
                return False
            say("ready without an engine: predictions answer 503 until it runs")
        print(f"LLM Finetuning is ready: {self._base} (docs: {self._base}/docs)", flush=True)
        return True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    def _end(self) -> None:
        """Ask, wait, and kill what is left, wherever it hangs in the tree."""
        children = [*self._children, *self._engines.on_demand()]
        for child in children:
            child.terminate()
        until = time.monotonic() + self._settings.drain_seconds + GRACE_SECONDS
        while self._signals < 2 and time.monotonic() < until:
            if all(child.has_ended() for child in children):
                break
            time.sleep(LOOK_SECONDS)
        for child in children:
            if child.process is not None:
                kill_session(child.process.pid)
                child.process.wait()
        kill_marked(MARK, self._mark)  # the trainers of a worker that died before
        self._engines.forget()


WORKER = (
    *(sys.executable, "-m", "celery", "--quiet", "--app", "run", "worker"),
    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
)


def _web(settings: Settings, listener: socket.socket) -> list[str]:
    return [
        *(sys.executable, "-m", "gunicorn", "app:create_app()"),
        *("--bind", f"fd://{listener.fileno()}", "--worker-class", "app.processes.web.WebWorker"),
        *("--workers", str(settings.web_workers), "--threads", str(settings.web_threads)),
        "--forwarded-allow-ips=",  # whom to believe is TRUSTED_PROXIES' alone
        *("--graceful-timeout", "5", "--no-control-socket", "--log-level", settings.log_level.lower()),
    ]


def _metrics_folder(instance_dir: Path) -> str:
    """Where the web processes, and those before and after a restart, add their figures up; empty at the start."""
    folder = instance_dir / "metrics"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return str(folder)


def _base(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


if __name__ == "__main__":
    sys.exit(main())
