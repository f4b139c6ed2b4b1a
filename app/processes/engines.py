"""The engines of ``python run.py``: that of ENGINE_BASE_MODEL, always; others when somebody wishes for them."""

import json
import secrets
import socket
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from app.bootstrap import Settings
from app.core.entities.engines import EngineName
from app.core.errors import AppError
from app.implementations.serving.addresses import (
    OwnEngines,
    Refusal,
    wishes,
    write_own_engines,
)
from app.processes.children import Child, say
from app.processes.engine_folders import engine_bytes, engine_folders

BASE_MODEL_MISSING = 3  # an exit status of the engine
ASK_SECONDS = 0.3  # between two questions to an engine that starts, or is to make room
ANSWER_SECONDS = 1.0
IDLE_SECONDS = 1.0  # so long nobody has asked one that may go: who waited for its start is on the way to it
PATIENCE_SECONDS = 10.0  # that a wish waits for others to fall idle
REFUSAL_SECONDS = 60.0  # that a refusal is shown


@dataclass
class OnDemand:
    child: Child
    url: str
    bytes: int
    ready: bool = False
    leaving: bool = False


@dataclass
class Wish:
    bytes: int
    since: float = field(default_factory=time.monotonic)


class OwnEngineProcesses:
    """Starts, lists and ends them. ``always`` is kept up by the supervisor; None where somebody else runs it."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        given = settings.engine_secret
        self._secret = given.get_secret_value() if given else secrets.token_urlsafe(32)
        # Several engines share the cores: threads that spin while they wait would take them from each other.
        self._environment = {"OMP_WAIT_POLICY": "passive", **environment, "ENGINE_SECRET": self._secret}
        most = settings.engines_bytes
        self._budget = psutil.virtual_memory().total // 2 if most is None else most
        self._running: dict[EngineName, OnDemand] = {}
        self._wishes: dict[EngineName, Wish] = {}
        self._refused: dict[str, Refusal] = {}
        self._ask_at = 0.0
        self._always_url: str | None = None
        self.always = self._child_for_good(environment)
        for file, _ in wishes(settings.instance_dir):
            file.unlink()  # nobody waits any more who asked a service that is gone
        self._publish()

    def tend(self) -> None:
        """To be called every moment."""
        self._take_wishes()
        changed = self._bury()
        now = time.monotonic()
        if (self._wishes or any(not one.ready for one in self._running.values())) and now >= self._ask_at:
            changed |= self._look_whether_ready()
            changed |= self._grant_wishes()
            self._ask_at = now + ASK_SECONDS
        if changed:
            self._publish()

    def on_demand(self) -> Sequence[Child]:
        return [one.child for one in self._running.values()]

    def forget(self) -> None:
        """All have ended."""
        write_own_engines(self._settings.instance_dir, OwnEngines())

    def _child_for_good(self, environment: Mapping[str, str]) -> Child | None:
        name = self._settings.engine_base_model
        if name in self._settings.engines:
            return None
        port = _free_port()
        self._always_url = f"http://127.0.0.1:{port}"
        advice = f"no engine runs: {name} is not on disk. Run `flask --app run models pull {name}`"
        return Child(
            "engine",
            _command(EngineName(name), port),
            {**environment, "ENGINE_SECRET": self._secret},
            explain=lambda status: advice if status == BASE_MODEL_MISSING else None,
        )

    def _take_wishes(self) -> None:
        """From the folder into memory; a wish's file goes when all can read what came of it."""
        heard = list(wishes(self._settings.instance_dir))
        for _, engine in heard:
            if engine not in self._wishes and (engine not in self._running or self._running[engine].leaving):
                self._consider(engine)
        if heard:
            self._publish()
        for file, _ in heard:
            file.unlink(missing_ok=True)

    def _consider(self, engine: EngineName) -> None:
        try:
            size = engine_bytes(self._settings, engine, *engine_folders(self._settings, engine))
        except AppError as error:
            self._refuse(engine, error.message)
            return
        if size > self._budget:
            told = f"it may take {_gib(size)}, and all engines on demand have {_gib(self._budget)}"
            self._refuse(engine, f"{told} (ENGINES_BYTES)")
        else:
            self._wishes[engine] = Wish(size)

    def _bury(self) -> bool:
        """Those that have ended; the next wish brings them back."""
        ended = [(engine, one) for engine, one in self._running.items() if one.child.has_ended()]
        for engine, one in ended:
            del self._running[engine]
            status = one.child.process.poll() if one.child.process else None
            if not one.leaving:
                say(f"the engine of {engine} ended (status {status}); the next request for it starts it again")
            if not one.ready:
                self._refuse(engine, f"its engine ended as it started (status {status}): the log says why")
        return bool(ended)

    def _look_whether_ready(self) -> bool:
        starting = [one for one in self._running.values() if not one.ready]
        for one in starting:
            one.ready = _health(one.url).get("status") == "ok"
        return any(one.ready for one in starting)

    def _grant_wishes(self) -> bool:
        """The oldest first: a large one would else never find room between small ones."""
        before = len(self._wishes)
        for engine, wish in list(self._wishes.items()):
            taken = sum(one.bytes for one in self._running.values())
            if taken + wish.bytes <= self._budget and engine not in self._running:
                del self._wishes[engine]
                self._start(engine, wish.bytes)
                continue
            if time.monotonic() - wish.since > PATIENCE_SECONDS:
                del self._wishes[engine]
                self._refuse(engine, "every engine that could make room for its own is busy: ask again")
            elif not any(one.leaving for one in self._running.values()):
                self._send_one_away()
            break
        return len(self._wishes) != before

    def _send_one_away(self) -> None:
        """The one that has been idle for the longest. From here on nobody is sent to it."""
        idle = [
            (float(told["idle_seconds"]), one)
            for one in self._running.values()
            if one.ready and (told := _health(one.url)).get("status") == "ok" and not told["active"]
        ]
        seconds, longest = max(idle, key=lambda pair: pair[0], default=(0.0, None))
        if longest is None or seconds < IDLE_SECONDS:
            return
        longest.leaving = True
        self._publish()
        longest.child.terminate()

    def _start(self, engine: EngineName, size: int) -> None:
        port = _free_port()
        child = Child(f"engine of {engine}", _command(engine, port), self._environment)
        child.tend()
        self._running[engine] = OnDemand(child, f"http://127.0.0.1:{port}", size)

    def _refuse(self, engine: EngineName, why: str) -> None:
        self._refused[str(engine)] = Refusal(time.monotonic(), f"no engine for {engine}: {why}")

    def _publish(self) -> None:
        now = time.monotonic()
        self._refused = {name: one for name, one in self._refused.items() if now - one.at < REFUSAL_SECONDS}
        ready = {engine: one.url for engine, one in self._running.items() if one.ready and not one.leaving}
        starting = [engine for engine, one in self._running.items() if not one.ready]
        bases = {engine.base_model: url for engine, url in ready.items() if engine.version is None}
        always = self._settings.engine_base_model if self._always_url else None
        if always and self._always_url:
            bases = {always: self._always_url, **bases}
        write_own_engines(
            self._settings.instance_dir,
            OwnEngines(
                always=always,
                engines=bases,
                versions={engine.version: url for engine, url in ready.items() if engine.version},
                starting=[str(engine) for engine in (*starting, *self._wishes)],
                refused=self._refused,
                secret=self._secret,
                starts_others=True,
            ),
        )


def _command(engine: EngineName, port: int) -> Sequence[str]:
    command = [sys.executable, "-m", "app.processes.engine", "--base_model", engine.base_model]
    return [*command, *(["--version", engine.version] if engine.version else []), "--port", str(port)]


def _health(url: str) -> Mapping[str, Any]:
    """What it says of itself; nothing where it does not answer, or not yet."""
    health = f"{url}/health"
    with suppress(OSError, ValueError), urllib.request.urlopen(health, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 # nosec B310 # our own engine
        told: Mapping[str, Any] = json.load(answer)
        return told
    return {}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
