"""The operator's client against small servers that list and load as ours, vLLM and others do."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from app.core.entities.engines import EngineKind, EngineState, LoadedAdapter
from app.core.entities.inference import Adapter
from app.core.errors import Invalid, Unavailable
from app.implementations.serving.engine_admin import HttpEngineAdmin
from app.implementations.serving.places import EnginePlaces

ADAPTER = Adapter("version-1", "/models/registry/version-1")
PINNED = replace(ADAPTER, pinned=True)


class FakeEngine:
    """``owner`` is what its cards say: ``engine``, ``vllm`` or another. ``refusal`` answers a load."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.adapters: dict[str, dict[str, Any]] = {}
        self.loads: list[dict[str, Any]] = []
        self.refusal: tuple[int, str] | None = None
        self.status = 200
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/models":
            base = {"id": "tiny", "owned_by": self.owner, "max_model_len": 256, "parent": None}
            adapters = [{"id": name, "parent": "tiny", **card} for name, card in self.adapters.items()]
            return self.status, {"data": [base, *adapters]}
        if path == "/v1/unload_lora_adapter":
            gone = self.adapters.pop(body["lora_name"], None)
            return (404, {"error": {"message": "none"}}) if gone is None else (200, "Success")
        self.loads.append(body)
        if self.refusal:
            return self.refusal[0], {"error": {"message": self.refusal[1]}}
        told = {"bytes": 100, "pinned": body.get("pinned", False)} if self.owner == "engine" else {}
        self.adapters[body["lora_name"]] = told
        return 200, "Success"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def _answer(self, body: dict[str, Any]) -> None:
                status, content = fake.answer(self.path, body)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(content).encode())

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture(params=["engine"])
def engine(request: pytest.FixtureRequest) -> Iterator[FakeEngine]:
    fake = FakeEngine(request.param)
    yield fake
    fake.close()


@pytest.fixture
def admin(engine: FakeEngine) -> HttpEngineAdmin:
    return HttpEngineAdmin(EnginePlaces({"tiny": engine.url + "/"}, "secret"), 5.0)


def ours_and(*others: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("engine", ["engine", *others], indirect=True)


def test_our_engine_tells_what_it_holds(admin: HttpEngineAdmin, engine: FakeEngine) -> None:
    admin.load("tiny", PINNED)
    assert engine.loads == [{"lora_name": "version-1", "lora_path": ADAPTER.folder, "pinned": True}]
    kept = LoadedAdapter("version-1", 100, True)
    assert admin.states() == [EngineState("tiny", EngineKind.OURS, 256, [kept])]
    admin.load("tiny", ADAPTER)  # there already: pinned no more
    assert admin.states()[0].adapters == [replace(kept, pinned=False)]


@pytest.mark.parametrize("engine", ["vllm"], indirect=True)
def test_vllm_loads_once_and_pins_nothing(admin: HttpEngineAdmin, engine: FakeEngine) -> None:
    with pytest.raises(Invalid) as refused:
        admin.load("tiny", PINNED)
    assert (refused.value.code, engine.loads) == ("pin_not_supported", [])
    admin.load("tiny", ADAPTER)
    admin.load("tiny", ADAPTER)
    assert len(engine.loads) == 1
    assert admin.states() == [EngineState("tiny", EngineKind.VLLM, 256, [LoadedAdapter("version-1")])]


@ours_and("vllm")
def test_unloading_says_whether_it_was_there(admin: HttpEngineAdmin, engine: FakeEngine) -> None:
    admin.load("tiny", ADAPTER)
    assert admin.unload("tiny", "version-1") is True
    assert admin.unload("tiny", "version-1") is False


@ours_and("vllm")
def test_a_refusal_never_names_a_path_of_another_engine(
    admin: HttpEngineAdmin, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    ours = engine.owner == "engine"
    engine.refusal = (400, "it has no rank" if ours else "/models/registry/version-1 has no rank")
    with pytest.raises(Invalid) as refused:
        admin.load("tiny", ADAPTER)
    assert refused.value.code == "adapter_refused"
    assert "/models" not in refused.value.message
    assert ("it has no rank" in refused.value.message) == ours
    assert "has no rank" in caplog.text


@pytest.mark.parametrize(
    ("engine", "kind"), [("engine", "ours"), ("vllm", "vllm"), ("tgi", "other")], indirect=["engine"]
)
def test_the_kind_is_asked_once_in_a_while(admin: HttpEngineAdmin, engine: FakeEngine, kind: str) -> None:
    assert admin.kind("tiny") == kind
    engine.status = 500
    assert admin.kind("tiny") == kind
    assert admin.kind("nobody") is EngineKind.OURS


def test_an_engine_that_does_not_answer(admin: HttpEngineAdmin, engine: FakeEngine) -> None:
    engine.status = 503
    assert admin.states() == [EngineState("tiny")]
    with pytest.raises(Unavailable):
        admin.load("tiny", ADAPTER)
    engine.close()
    assert admin.states() == [EngineState("tiny")]
    assert admin.kind("tiny") is EngineKind.OURS
    for ask in (lambda: admin.load("tiny", ADAPTER), lambda: admin.unload("tiny", "x")):
        with pytest.raises(Unavailable) as away:
            ask()
        assert away.value.code == "engine_unavailable"
    engine.__init__("engine")  # type: ignore[misc]  # for the fixture to close


def test_a_base_without_an_engine(admin: HttpEngineAdmin) -> None:
    with pytest.raises(Unavailable, match="big") as refused:
        admin.load("big", ADAPTER)
    assert refused.value.code == "base_not_resident"
    assert admin.unload("big", "x") is False  # it holds nothing
