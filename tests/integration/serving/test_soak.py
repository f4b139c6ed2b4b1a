"""Mixed traffic for minutes, with clients that go away, more adapters than fit, and cores that are killed.

``SOAK_SECONDS`` is how long (default: two minutes).
"""

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app.core.entities.inference import Adapter
from app.core.errors import TooMany, Unavailable
from app.implementations.serving.engine_client import HttpEngineClient
from app.implementations.serving.places import EnginePlaces
from tests.running_engine import BASE, SECRET, Engine, asked, free_port, parts, running
from tests.serving_models import write_adapter

SECONDS = float(os.environ.get("SOAK_SECONDS", "120"))
LIVES = 5  # of the engine; the last is half of the time
CLIENTS = 4
ADAPTERS = 8
LITTLE = {"ENGINE_ADAPTER_BYTES": "150000", "ENGINE_KV_BYTES": str(8 * 2**20)}  # three adapters, one slab
MOST_GROWTH = 48 * 2**20  # bytes of either process in the last life, from its first quarter on
SCHEMA = {"type": "array", "prefixItems": [{"enum": [1, 2]}, {"type": "boolean"}], "items": False, "minItems": 2}


class Traffic:
    """``outcomes`` counts what became of each kind of request. ``down`` is set around a kill."""

    def __init__(self, port: int, adapters: Mapping[str, Path]) -> None:
        self.outcomes: Counter[str] = Counter()
        self.faults: list[str] = []
        self.down = threading.Event()
        self.over = threading.Event()
        self._adapters = adapters
        self._client = HttpEngineClient(EnginePlaces({BASE: f"http://127.0.0.1:{port}"}, SECRET), 30)
        self._engine = Engine(None, port)  # type: ignore[arg-type]

    def run(self, number: int) -> None:
        draw = random.Random(number)
        kinds: list[tuple[str, Callable[[random.Random], str]]] = [
            ("adapter", self.adapter),
            ("adapter", self.adapter),
            ("stream", self.stream),
            ("whole", self.whole),
            ("leaver", self.leaver),
        ]
        while not self.over.wait(draw.random() * 0.2):
            name, kind = draw.choice(kinds)
            certain = not self.down.is_set()
            try:
                outcome = kind(draw)
            except (Unavailable, httpx.TransportError, OSError) as error:
                outcome = getattr(error, "code", "") or type(error).__name__
                # Another's adapter may have taken its place at once. All else is excused by a kill alone.
                if certain and not self.down.is_set() and outcome != "adapter_refused":
                    self.faults.append(f"{name}: {outcome}: {error}")
            except TooMany:
                outcome = "busy"
            self.outcomes[f"{name} {outcome}"] += 1

    def close(self) -> None:
        self._engine.http.close()

    def adapter(self, draw: random.Random) -> str:
        name = draw.choice(list(self._adapters))
        adapter = Adapter(name, str(self._adapters[name]))
        prompt = [draw.randrange(3, 500) for _ in range(draw.choice((3, 30, 180)))]
        self._client.generate(asked(prompt, draw.randrange(1, 60), adapter))
        return "answered"

    def stream(self, draw: random.Random) -> str:
        response = self._engine.complete(**self._body(draw), stream=True)
        if response.status_code != 200:
            return self._refused(response)
        events = parts(response)
        if "error" in events[-1]:
            return str(events[-1]["error"]["code"])
        assert response.text.endswith("data: [DONE]\n\n")
        return "stream"

    def whole(self, draw: random.Random) -> str:
        response = self._engine.complete(**self._body(draw))
        if response.status_code != 200:
            return self._refused(response)
        return str(response.json()["choices"][0]["finish_reason"])

    def leaver(self, draw: random.Random) -> str:
        with self._engine.send(max_tokens=200, stream=draw.random() < 0.5) as connection:
            connection.settimeout(draw.random() * 0.2 + 0.001)
            with suppress(TimeoutError):
                connection.recv(1)
        return "left"

    def _body(self, draw: random.Random) -> dict[str, Any]:
        body: dict[str, Any] = {
            "prompt": [draw.randrange(3, 500) for _ in range(draw.choice((1, 70, 200)))],
            "max_tokens": draw.randrange(1, 100),
            "temperature": draw.choice((0, 1)),
            "n": draw.choice((1, 1, 3)),
            "cache_salt": draw.choice("abc"),
        }
        if draw.random() < 0.2:
            body["structured_outputs"] = {"json": {**SCHEMA, "title": draw.choice("abcdef")}}
        if draw.random() < 0.2:
            body["timeout"] = draw.choice((0.001, 0.1, 20))
        return body

    def _refused(self, response: httpx.Response) -> str:
        code = str(response.json()["error"]["code"])
        expected = {"deadline_exceeded", "queue_timeout"}
        if code not in expected and not self.down.is_set():
            self.faults.append(f"{response.status_code} {response.text}")
        assert response.status_code >= 500, response.text
        return code


def resident(engine: Engine) -> Mapping[str, int]:
    return {
        "core": engine.core.memory_info().rss,
        "front": psutil.Process(engine.process.pid).memory_info().rss,
    }


@pytest.mark.slow
def test_a_soak_with_kills_and_disconnects(models_dir: Path, tmp_path: Path) -> None:
    base = models_dir / "base" / BASE
    adapters = {f"a{n}": write_adapter(base, tmp_path / f"a{n}", n, r=4 + n) for n in range(ADAPTERS)}
    port = free_port()
    traffic = Traffic(port, adapters)
    traffic.down.set()
    draw = random.Random(1)
    wait = threading.Event().wait
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(traffic.run, number) for number in range(CLIENTS)]
        try:
            for _ in range(LIVES - 1):
                with running(models_dir, port, **LITTLE) as engine:
                    traffic.down.clear()
                    wait(SECONDS / 2 / (LIVES - 1) * (0.5 + draw.random()))
                    traffic.down.set()
                    engine.core.kill()
                    assert engine.process.wait(10) == 1
            with running(models_dir, port, **LITTLE) as engine:
                traffic.down.clear()
                wait(SECONDS / 8)
                early = resident(engine)
                wait(SECONDS * 3 / 8)
                late = resident(engine)
                traffic.over.set()
                for client in clients:
                    client.result()
                engine.await_figure("engine_num_requests_running", 0)
                engine.await_figure("engine_num_requests_waiting", 0)
                assert engine.figures()["engine_adapters_resident"] <= 4
                for _ in adapters:  # each is loaded again by who asks for it
                    assert traffic.adapter(draw) == "answered"
        finally:
            traffic.over.set()
    traffic.close()
    print(dict(traffic.outcomes), early, late)
    assert traffic.faults == []
    assert {name: late[name] - early[name] < MOST_GROWTH for name in late} == dict.fromkeys(late, True)
    for kind in ("adapter answered", "stream stream", "whole length", "leaver left"):
        assert traffic.outcomes[kind] > SECONDS / 10, traffic.outcomes
