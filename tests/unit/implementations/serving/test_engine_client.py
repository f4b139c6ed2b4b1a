"""The client against a small engine of the same wire, which answers as it is told."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from app.core.entities.inference import Adapter, Generation, GenerationRequest
from app.core.errors import AppError, Invalid, TooMany, Unavailable
from app.implementations.serving.engine_client import HttpEngineClient

ADAPTER = Adapter("version-1", "/models/registry/version-1")
Reply = tuple[int, Any, dict[str, str]]


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that gave up is what some tests are about."""


class FakeEngine:
    """Knows a base model ``tiny`` and the adapters that were loaded; ``reply`` overrules what it would answer."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.authorizations: set[str | None] = set()
        self.adapters: set[str] = set()
        self.refuses = False
        self.reply: Callable[[str, dict[str, Any]], Reply | None] = lambda path, body: None
        self.release = threading.Event()
        self._server = QuietServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def asked(self, path: str) -> list[dict[str, Any]]:
        return [body for asked, body in self.requests if asked == path]

    def answer(self, path: str, body: dict[str, Any]) -> Reply:
        self.requests.append((path, body))
        if (reply := self.reply(path, body)) is not None:
            return reply
        if path == "/health":
            return 200, b"", {}
        if path == "/v1/load_lora_adapter":
            if self.refuses:
                return 400, {"error": {"message": f"cannot read {body['lora_path']}"}}, {}
            self.adapters.add(body["lora_name"])
            return 200, b"Success", {}
        if body["model"] not in {"tiny", *self.adapters}:
            return 404, {"error": {"message": "no such model", "code": 404}}, {}
        return 200, {"choices": [{"text": "Hello", "finish_reason": "stop"}], "usage": USAGE}, {}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def _answer(self, body: dict[str, Any]) -> None:
                fake.authorizations.add(self.headers["authorization"])
                status, content, headers = fake.answer(self.path, body)
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


USAGE = {"prompt_tokens": 3, "completion_tokens": 5}


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    fake = FakeEngine()
    yield fake
    fake.close()


@pytest.fixture
def client(engine: FakeEngine) -> HttpEngineClient:
    return HttpEngineClient({"tiny": engine.url + "/"}, "secret", 5.0)


def request(base: str = "tiny", adapter: Adapter | None = None, **changes: Any) -> GenerationRequest:
    return GenerationRequest(base, [1, 2, 3], 5, adapter=adapter, **changes)


def error_of(ask: Callable[[], object]) -> AppError:
    with pytest.raises(AppError) as caught:
        ask()
    return caught.value


def test_a_generation_with_vllms_fields_alone(client: HttpEngineClient, engine: FakeEngine) -> None:
    answer = client.generate(request(temperature=0.5, stop_token_ids=(2,), sharing="project"))
    assert answer == Generation("Hello", "stop", 3, 5)
    assert engine.asked("/v1/completions") == [
        {
            "model": "tiny",
            "prompt": [1, 2, 3],
            "max_tokens": 5,
            "temperature": 0.5,
            "stop_token_ids": [2],
            "cache_salt": "project",
        }
    ]
    assert engine.authorizations == {"Bearer secret"}


def test_an_adapter_is_loaded_when_the_engine_does_not_know_it(
    client: HttpEngineClient, engine: FakeEngine
) -> None:
    for _ in range(2):
        assert client.generate(request("tiny", ADAPTER)).text == "Hello"
    assert engine.asked("/v1/load_lora_adapter") == [{"lora_name": ADAPTER.name, "lora_path": ADAPTER.folder}]
    assert [body["model"] for body in engine.asked("/v1/completions")] == [ADAPTER.name] * 3


def test_a_pinned_adapter_is_loaded_as_one(client: HttpEngineClient, engine: FakeEngine) -> None:
    client.generate(request(adapter=replace(ADAPTER, pinned=True)))
    [load] = engine.asked("/v1/load_lora_adapter")
    assert load == {"lora_name": ADAPTER.name, "lora_path": ADAPTER.folder, "pinned": True}


def test_an_adapter_that_another_has_loaded_meanwhile_serves(client: HttpEngineClient, engine: FakeEngine) -> None:
    def loaded_already(path: str, body: dict[str, Any]) -> Reply | None:
        if path == "/v1/load_lora_adapter":
            engine.adapters.add(ADAPTER.name)
            return 400, {"error": {"message": "has already been loaded"}}, {}
        return None

    engine.reply = loaded_already
    assert client.generate(request(adapter=ADAPTER)).text == "Hello"


def test_an_adapter_that_the_engine_refuses(
    client: HttpEngineClient, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.refuses = True
    error = error_of(lambda: client.generate(request(adapter=ADAPTER)))
    assert (type(error), error.code) == (Unavailable, "adapter_refused")
    assert ADAPTER.folder not in error.message
    assert ADAPTER.folder in caplog.text
    assert len(engine.asked("/v1/completions")) == 2


def test_a_base_that_nobody_serves_names_those_that_are(client: HttpEngineClient, engine: FakeEngine) -> None:
    error = error_of(lambda: client.generate(request("big")))
    assert (error.status, error.code) == (503, "base_not_resident")
    assert "resident: tiny" in error.message
    assert engine.asked("/v1/completions") == []
    error = error_of(lambda: HttpEngineClient({"big": engine.url}, None, 5).generate(request("big")))
    assert error.code == "base_not_resident"  # an engine of another base model


def test_an_engine_that_is_not_there() -> None:
    gone = FakeEngine()
    gone.close()
    client = HttpEngineClient({"tiny": gone.url}, None, 5)
    error = error_of(lambda: client.generate(request()))
    assert (error.status, error.code, error.retry_after) == (503, "engine_unavailable", 2)
    assert gone.url not in error.message
    assert client.resident() == []


def test_a_full_queue_says_when_to_come_again(client: HttpEngineClient, engine: FakeEngine) -> None:
    engine.reply = lambda path, body: (429, {"error": {"message": "full"}}, {"retry-after": "7"})
    error = error_of(lambda: client.generate(request()))
    assert isinstance(error, TooMany)
    assert error.retry_after == 7


def test_a_fault_in_the_request_is_told(client: HttpEngineClient, engine: FakeEngine) -> None:
    engine.reply = lambda path, body: (400, {"error": {"message": "the prompt is too long"}}, {})
    error = error_of(lambda: client.generate(request()))
    assert (type(error), error.message) == (Invalid, "the prompt is too long")


@pytest.mark.parametrize(
    ("status", "content"), [(500, b"oops /secret/path"), (401, b"{}"), (200, b"not json"), (200, {"choices": []})]
)
def test_an_engine_that_fails_is_unavailable(
    client: HttpEngineClient, engine: FakeEngine, status: int, content: Any
) -> None:
    engine.reply = lambda path, body: (status, content, {})
    error = error_of(lambda: client.generate(request()))
    assert (error.status, error.code) == (503, "engine_unavailable")
    assert "/secret" not in error.message


def test_a_generation_that_takes_too_long(engine: FakeEngine) -> None:
    def hang(path: str, body: dict[str, Any]) -> None:
        engine.release.wait(10)

    engine.reply = hang
    client = HttpEngineClient({"tiny": engine.url}, None, 0.1)
    started = time.monotonic()
    error = error_of(lambda: client.generate(request()))
    assert (error.status, error.code) == (503, "engine_timeout")
    assert time.monotonic() - started < 5


def test_health_is_asked_once_a_second_at_most(
    client: HttpEngineClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [client.resident() for _ in range(3)] == [["tiny"]] * 3
    assert len(engine.asked("/health")) == 1
    engine.reply = lambda path, body: (503, b"", {})
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1.5)
    assert client.resident() == []


def test_resident_bases_come_in_the_order_of_configuration(engine: FakeEngine) -> None:
    client = HttpEngineClient({"b": engine.url, "down": "http://127.0.0.1:9", "a": engine.url}, None, 5)
    assert client.resident() == ["b", "a"]
