"""The engine's two processes on a tiny random model, for tests that speak HTTP to it."""

import json
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app.core.entities.inference import Adapter, AnswerOptions, GenerationRequest

BASE = "tiny-random"
SECRET = "a secret of the house"


class Engine:
    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {SECRET}"}, timeout=60)

    @property
    def core(self) -> psutil.Process:
        [core] = psutil.Process(self.process.pid).children()
        return core

    def complete(self, model: str = BASE, **changes: Any) -> Any:
        body = {"model": model, "prompt": [5, 6, 7], "max_tokens": 16, "temperature": 0, "ignore_eos": True}
        return self.http.post("/v1/completions", json={**body, **changes})

    def send(self, model: str = BASE, **changes: Any) -> socket.socket:
        """A request whose answer nobody reads, on a connection of its own."""
        given = {"model": model, "prompt": [5, 6, 7], "max_tokens": 16, "temperature": 0, "ignore_eos": True}
        body = json.dumps({**given, **changes}).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection = socket.create_connection(("127.0.0.1", int(self.url.rpartition(":")[2])))
        connection.sendall(head.encode() + body)
        return connection

    def text(self, model: str = BASE, **changes: Any) -> str:
        response = self.complete(model, **changes)
        assert response.status_code == 200, response.text
        return str(response.json()["choices"][0]["text"])

    def load(self, name: str, folder: Path) -> httpx.Response:
        return self.http.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder)})

    def figures(self) -> Mapping[str, float]:
        """Prometheus' samples: name → value, summed over labels."""
        found: dict[str, float] = {}
        for line in self.http.get("/metrics").text.splitlines():
            if not line.startswith("#"):
                name = line.partition("{")[0]
                found[name] = found.get(name, 0) + float(line.rpartition(" ")[2])
        return found

    def series(self, model: str) -> Mapping[str, float]:
        """Those with this label: name → value, summed over other labels; ``name_outcome`` for each outcome."""
        found: dict[str, float] = {}
        for line in self.http.get("/metrics").text.splitlines():
            if f'model="{model}"' in line.replace("base_model=", "base="):
                name, _, labels = line.partition("{")
                outcome = labels.partition('outcome="')[2].partition('"')[0]
                name = f"{name}_{outcome}" if outcome else name
                found[name] = found.get(name, 0) + float(line.rpartition(" ")[2])
        return found

    def await_figure(self, name: str, value: float) -> None:
        for _ in range(500):
            if self.figures()[name] == value:
                return
            threading.Event().wait(0.01)
        pytest.fail(f"{name} is {self.figures()[name]}, not {value}")


def start(models_dir: Path, port: int, *options: str, **environment: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "app.processes.engine", "--base_model", BASE, "--port", str(port), *options]
    variables = {**os.environ, "MODELS_DIR": str(models_dir), "ENGINE_PRECISION": "fp32", **environment}
    return subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(models_dir: Path, port: int | None = None, **environment: str) -> Iterator[Engine]:
    port = port or free_port()
    process = start(models_dir, port, "--threads", "1", ENGINE_SECRET=SECRET, **environment)
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=lambda: [lines.put(line) for line in process.stderr or ()])
    reader.start()
    engine = Engine(process, port)
    try:
        while "engine of tiny-random on http://127.0.0.1" not in lines.get(timeout=60):
            pass
        while engine.http.get("/health").status_code != 200:
            assert process.poll() is None
            threading.Event().wait(0.05)
        yield engine
    finally:
        process.kill()
        process.wait()
        reader.join()
        engine.http.close()
        if process.stderr:
            process.stderr.close()


def asked(prompt: list[int], max_tokens: int, adapter: Adapter | None = None) -> GenerationRequest:
    """What the gateway's client takes."""
    return GenerationRequest(BASE, prompt, AnswerOptions(max_tokens=max_tokens), adapter=adapter)


def parts(response: Any) -> list[dict[str, Any]]:
    """The completion's, of a stream or whole."""
    if "event-stream" not in response.headers["content-type"]:
        return [response.json()]
    # Not by splitlines: what the model says may hold what Python, and not HTTP, takes for the end of a line.
    events = [line.removeprefix("data: ") for line in response.text.split("\n") if line]
    return [json.loads(event) for event in events if event != "[DONE]"]
