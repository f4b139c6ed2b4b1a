"""The client against a small engine of the same wire, which answers as it is told."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat
from typing import Any

import pytest

from app.core.entities.inference import (
    Adapter,
    AnswerOptions,
    Choice,
    Generation,
    GenerationRequest,
    Piece,
    TokenCounts,
    TokenLogprob,
)
from app.core.errors import AppError, Invalid, TooMany, Unavailable
from app.implementations.serving.engine_client import HEALTH_KEPT_SECONDS, HttpEngineClient
from app.implementations.serving.places import EnginePlaces
from app.implementations.serving.wire import CompletionBody

ADAPTER = Adapter("version-1", "/models/registry/version-1")
Reply = tuple[int, Any, dict[str, str]]
Ask = Callable[[GenerationRequest], str]


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that gave up is what some tests are about."""


class FakeEngine:
    """Knows a base model ``tiny`` and the adapters that were loaded; ``reply`` overrules what it would answer."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.authorizations: set[str | None] = set()
        self.adapters: set[str] = set()
        self.connections = 0
        self.refuses = False
        self.reply: Callable[[str, dict[str, Any]], Reply | None] = lambda path, body: None
        self.release = threading.Event()
        self.left = threading.Event()  # the client has gone away from a stream
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
        return 200, events(*TOLD) if body.get("stream") else WHOLE, {}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                fake.connections += 1
                super().setup()

            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def _answer(self, body: dict[str, Any]) -> None:
                fake.authorizations.add(self.headers["authorization"])
                status, content, headers = fake.answer(self.path, body)
                if isinstance(content, Iterator):
                    self._stream(content)
                    return
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def _stream(self, events: Iterator[bytes]) -> None:
                """In chunks; what is sent to one who has left fails at the second at the latest."""
                self.send_response(200)
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                try:
                    for event in events:
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
                        self.wfile.flush()
                except OSError:
                    fake.left.set()
                    raise
                self.wfile.write(b"0\r\n\r\n")

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def choice(text: str, finish: str | None = None, index: int = 0, **others: Any) -> dict[str, Any]:
    return {"index": index, "text": text, "finish_reason": finish, "logprobs": None, **others}


def events(*told: Any) -> Iterator[bytes]:
    for one in told:
        yield (
            b"data: " + (one if isinstance(one, bytes) else json.dumps(one, ensure_ascii=False).encode()) + b"\n\n"
        )


def endless() -> Iterator[bytes]:
    return repeat(next(events(TOLD[0])))


USAGE = {"prompt_tokens": 3, "completion_tokens": 5}
WHOLE = {"choices": [choice("Hello", "stop")], "usage": USAGE}
TOLD = [
    {"choices": [choice("Hel")]},
    {"choices": [choice("lo", "stop")]},
    {"choices": [], "usage": USAGE},
    b"[DONE]",
]
HELLO = [Piece("Hel"), Piece("lo", finish_reason="stop"), Piece(tokens=TokenCounts(3, 5))]


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    fake = FakeEngine()
    yield fake
    fake.close()


@pytest.fixture
def client(engine: FakeEngine) -> HttpEngineClient:
    return HttpEngineClient(EnginePlaces({"tiny": engine.url + "/"}, "secret"), 5.0)


def request(base: str = "tiny", adapter: Adapter | None = None, **options: Any) -> GenerationRequest:
    return GenerationRequest(base, [1, 2, 3], AnswerOptions(**{"max_tokens": 5, **options}), adapter=adapter)


@pytest.fixture(params=["whole", "stream"])
def ask(client: HttpEngineClient, request: pytest.FixtureRequest) -> Callable[[GenerationRequest], str]:
    """What is true of both: the text of an answer."""
    return lambda asked: text_of(client, asked, request.param)


def text_of(client: HttpEngineClient, asked: GenerationRequest, way: str) -> str:
    if way == "whole":
        return client.generate(asked).text
    return "".join(piece.text for piece in client.stream(asked))


def error_of(ask: Callable[[], object]) -> AppError:
    with pytest.raises(AppError) as caught:
        ask()
    return caught.value


def test_a_generation_with_vllms_fields_alone(client: HttpEngineClient, engine: FakeEngine) -> None:
    plain = replace(request(), stop_token_ids=(2,), sharing="project")
    assert client.generate(plain) == Generation([Choice("Hello", "stop")], TokenCounts(3, 5))
    assert engine.asked("/v1/completions") == [
        {
            "model": "tiny",
            "prompt": [1, 2, 3],
            "max_tokens": 5,
            "temperature": 0.0,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "ignore_eos": False,
            "n": 1,
            "stop": [],
            "stop_token_ids": [2],
            "cache_salt": "project",
        }
    ]
    assert engine.authorizations == {"Bearer secret"}


def test_all_that_may_be_asked_for(client: HttpEngineClient, engine: FakeEngine) -> None:
    options = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "n": 2, "seed": 4, "logprobs": 0}
    penalties = {"repetition_penalty": 1.5, "presence_penalty": -1.0, "frequency_penalty": 1.0, "ignore_eos": True}
    schema = {"type": "object"}
    client.generate(request(**options, **penalties, stop=("a", "b"), json_schema=schema, deadline_seconds=3))
    [asked] = engine.asked("/v1/completions")
    assert asked.items() >= {**options, **penalties, "stop": ["a", "b"]}.items()
    assert asked["structured_outputs"] == {"json": schema}
    assert asked.keys() <= CompletionBody.model_fields.keys() | {"structured_outputs"}


def test_several_choices_come_in_their_order(client: HttpEngineClient, engine: FakeEngine) -> None:
    choices = [choice("two", "length", 1), choice("one", "stop", 0)]
    engine.reply = lambda path, body: (200, {"choices": choices, "usage": USAGE}, {})
    assert client.generate(request(n=2)).choices == [Choice("one", "stop"), Choice("two", "length")]


def test_logprobs(client: HttpEngineClient, engine: FakeEngine) -> None:
    block = {"tokens": ["He"], "token_logprobs": [-0.5], "top_logprobs": [{"Ho": -0.4, "He": -0.5}]}
    told = choice("He", "stop", logprobs=block)
    found = (TokenLogprob("He", -0.5, {"Ho": -0.4, "He": -0.5}),)
    engine.reply = lambda path, body: (200, {"choices": [told], "usage": USAGE}, {})
    assert client.generate(request(logprobs=1)).choices[0].logprobs == found
    engine.reply = lambda path, body: (200, events({"choices": [told]}, *TOLD[2:]), {})
    assert next(client.stream(request(logprobs=1))).logprobs == found


def test_a_stream(client: HttpEngineClient, engine: FakeEngine) -> None:
    assert list(client.stream(request())) == HELLO
    [asked] = engine.asked("/v1/completions")
    assert (asked["stream"], asked["stream_options"]) == (True, {"include_usage": True})


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_stream_however_it_arrives(client: HttpEngineClient, engine: FakeEngine, size: int) -> None:
    odd = "é \u2028 👍 \x85 data: [DONE]"
    whole = b": hello\n\n" + b"".join(events({"choices": [choice(odd)]}, *TOLD))
    engine.reply = lambda path, body: (200, (whole[i : i + size] for i in range(0, len(whole), size)), {})
    assert list(client.stream(request())) == [Piece(odd), *HELLO]


def test_a_stream_that_is_closed_closes_the_engines(client: HttpEngineClient, engine: FakeEngine) -> None:
    engine.reply = lambda path, body: (200, endless(), {})
    stream = client.stream(request())
    assert next(stream) == HELLO[0]
    stream.close()
    assert engine.left.wait(10)


def test_a_stream_that_fails_on_the_way(client: HttpEngineClient, engine: FakeEngine) -> None:
    broken = [{"error": {"message": "/secret"}}], [], [b"{"], [{"choices": [{}]}], [b"[DONE]"]
    for rest in broken:
        engine.reply = lambda path, body, rest=rest: (200, events(TOLD[0], *rest), {})
        stream = client.stream(request())
        assert next(stream) == HELLO[0]
        error = error_of(lambda stream=stream: list(stream))
        assert (error.status, error.code) == (
            503,
            "engine_failed" if "error" in str(rest) else "engine_unavailable",
        )
        assert "/secret" not in error.message


def test_an_adapter_is_loaded_when_the_engine_does_not_know_it(ask: Ask, engine: FakeEngine) -> None:
    for _ in range(2):
        assert ask(request("tiny", ADAPTER)) == "Hello"
    assert engine.asked("/v1/load_lora_adapter") == [{"lora_name": ADAPTER.name, "lora_path": ADAPTER.folder}]
    assert [body["model"] for body in engine.asked("/v1/completions")] == [ADAPTER.name] * 3


def test_a_pinned_adapter_is_loaded_as_one(client: HttpEngineClient, engine: FakeEngine) -> None:
    client.generate(request(adapter=replace(ADAPTER, pinned=True)))
    [load] = engine.asked("/v1/load_lora_adapter")
    assert load == {"lora_name": ADAPTER.name, "lora_path": ADAPTER.folder, "pinned": True}


def test_an_adapter_that_another_has_loaded_meanwhile_serves(ask: Ask, engine: FakeEngine) -> None:
    def loaded_already(path: str, body: dict[str, Any]) -> Reply | None:
        if path == "/v1/load_lora_adapter":
            engine.adapters.add(ADAPTER.name)
            return 400, {"error": {"message": "has already been loaded"}}, {}
        return None

    engine.reply = loaded_already
    assert ask(request(adapter=ADAPTER)) == "Hello"


@pytest.mark.parametrize(("taken", "outcome"), [(2, "Hello"), (9, "adapter_refused")])
def test_an_adapter_whose_place_others_take_before_it_is_asked(
    ask: Ask, engine: FakeEngine, taken: int, outcome: str
) -> None:
    def crowded(path: str, body: dict[str, Any]) -> Reply | None:
        if path == "/v1/load_lora_adapter" and len(engine.asked(path)) <= taken:
            return 200, {}, {}  # and it is gone again
        return None

    engine.reply = crowded
    if outcome == "Hello":
        assert ask(request(adapter=ADAPTER)) == outcome
    else:
        assert error_of(lambda: ask(request(adapter=ADAPTER))).code == outcome
    assert len(engine.asked("/v1/load_lora_adapter")) == 3


def test_an_adapter_that_the_engine_refuses(
    ask: Ask, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.refuses = True
    error = error_of(lambda: ask(request(adapter=ADAPTER)))
    assert (type(error), error.code) == (Unavailable, "adapter_refused")
    assert ADAPTER.folder not in error.message
    assert ADAPTER.folder in caplog.text
    assert len(engine.asked("/v1/completions")) == 2


def test_a_base_that_nobody_serves_names_those_that_are(client: HttpEngineClient, engine: FakeEngine) -> None:
    error = error_of(lambda: client.generate(request("big")))
    assert (error.status, error.code) == (503, "base_not_resident")
    assert "there are: tiny" in error.message
    assert engine.asked("/v1/completions") == []
    error = error_of(lambda: HttpEngineClient(EnginePlaces({"big": engine.url}, None), 5).generate(request("big")))
    assert error.code == "base_not_resident"  # an engine of another base model


def test_an_engine_that_is_not_there() -> None:
    gone = FakeEngine()
    gone.close()
    client = HttpEngineClient(EnginePlaces({"tiny": gone.url}, None), 5)
    error = error_of(lambda: client.generate(request()))
    assert (error.status, error.code, error.retry_after) == (503, "engine_unavailable", 2)
    assert gone.url not in error.message
    assert client.resident() == []


def test_a_full_queue_says_when_to_come_again(ask: Ask, engine: FakeEngine) -> None:
    engine.reply = lambda path, body: (429, {"error": {"message": "full"}}, {"retry-after": "7"})
    error = error_of(lambda: ask(request()))
    assert isinstance(error, TooMany)
    assert error.retry_after == 7


def test_a_fault_in_the_request_is_told(ask: Ask, engine: FakeEngine) -> None:
    engine.reply = lambda path, body: (400, {"error": {"message": "the prompt is too long"}}, {})
    error = error_of(lambda: ask(request()))
    assert (type(error), error.message) == (Invalid, "the prompt is too long")


@pytest.mark.parametrize(
    ("status", "content"), [(500, b"oops /secret/path"), (401, b"{}"), (200, b"not json"), (200, {"choices": []})]
)
def test_an_engine_that_fails_is_unavailable(ask: Ask, engine: FakeEngine, status: int, content: Any) -> None:
    engine.reply = lambda path, body: (status, content, {})
    error = error_of(lambda: ask(request()))
    assert (error.status, error.code) == (503, "engine_unavailable")
    assert "/secret" not in error.message


@pytest.mark.parametrize(("limit", "options"), [(0.1, {}), (30, {"deadline_seconds": 0.1})])
@pytest.mark.parametrize("way", ["whole", "stream"])
def test_a_generation_that_takes_too_long(
    engine: FakeEngine, way: str, limit: float, options: dict[str, float]
) -> None:
    def hang(path: str, body: dict[str, Any]) -> None:
        engine.release.wait(30)

    engine.reply = hang
    client = HttpEngineClient(EnginePlaces({"tiny": engine.url}, None), limit)
    error = error_of(lambda: text_of(client, request(**options), way))
    assert (error.status, error.code) == (503, "engine_timeout")


@pytest.mark.parametrize("pause", [0.01, 30])
def test_a_stream_that_takes_too_long_in_all(client: HttpEngineClient, engine: FakeEngine, pause: float) -> None:
    def slowly() -> Iterator[bytes]:
        for event in endless():
            yield event
            engine.release.wait(pause)

    engine.reply = lambda path, body: (200, slowly(), {})
    error = error_of(lambda: list(client.stream(request(deadline_seconds=0.3))))
    assert (error.status, error.code) == (503, "engine_timeout")


@pytest.mark.parametrize("way", ["whole", "stream"])
def test_nobody_waits_any_more_before_the_answer_begins(
    client: HttpEngineClient, engine: FakeEngine, way: str
) -> None:
    asked, gone = threading.Event(), threading.Event()

    def hang(path: str, body: dict[str, Any]) -> None:
        asked.set()
        engine.release.wait(30)

    def is_wanted() -> bool:
        if asked.is_set():
            gone.set()
        return not gone.is_set()

    engine.reply = hang
    ask = client.generate if way == "whole" else lambda asked, wanted: next(client.stream(asked, wanted))
    error = error_of(lambda: ask(request(), is_wanted))
    assert (error.status, error.code) == (503, "client_gone")
    assert not engine.release.is_set()


def test_a_stream_that_nobody_reads_any_more_closes_the_engines(
    client: HttpEngineClient, engine: FakeEngine
) -> None:
    engine.reply = lambda path, body: (200, endless(), {})
    gone = threading.Event()
    stream = client.stream(request(), lambda: not gone.is_set())
    assert next(stream) == HELLO[0]
    gone.set()
    assert error_of(lambda: list(stream)).code == "client_gone"
    assert engine.left.wait(10)


def test_a_connection_is_used_again_unless_the_engine_has_closed_it(
    client: HttpEngineClient, engine: FakeEngine
) -> None:
    for _ in range(2):
        client.generate(request())
        list(client.stream(request()))
    assert engine.connections == 1
    engine.reply = lambda path, body: (200, WHOLE, {"connection": "close"})
    client.generate(request())
    engine.reply = lambda path, body: None
    assert client.generate(request()).text == "Hello"
    assert engine.connections == 2


def test_health_is_asked_once_a_second_at_most(client: HttpEngineClient, engine: FakeEngine) -> None:
    assert [client.resident() for _ in range(3)] == [["tiny"]] * 3
    assert len(engine.asked("/health")) == 1
    engine.reply = lambda path, body: (503, b"", {})
    client._resident.expire(time.monotonic() + HEALTH_KEPT_SECONDS)
    assert client.resident() == []


def test_resident_bases_come_in_the_order_of_configuration(engine: FakeEngine) -> None:
    client = HttpEngineClient(
        EnginePlaces({"b": engine.url, "down": "http://127.0.0.1:9", "a": engine.url}, None), 5
    )
    assert client.resident() == ["b", "a"]
