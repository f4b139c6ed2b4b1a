"""The engine's two processes, over HTTP, on a tiny random model."""

import json
import select
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app.core.entities.engines import EngineKind
from app.core.entities.inference import Adapter, AnswerOptions, GenerationRequest
from app.core.errors import Invalid, Unavailable
from app.implementations.serving.engine import MOST_WAITING
from app.implementations.serving.engine_admin import HttpEngineAdmin
from app.implementations.serving.engine_client import HttpEngineClient
from app.implementations.serving.messages import MOST_RUNNING
from app.implementations.serving.places import EnginePlaces
from tests.running_engine import BASE, SECRET, Engine, parts, running, start
from tests.serving_models import CONTEXT


def test_concurrent_requests_over_base_and_adapters_answer_as_they_do_alone(engine: Engine) -> None:
    jobs = [
        (model, {"prompt": [i + 3, i + 4], "max_tokens": 8 + i, "temperature": temperature, "seed": i})
        for i in range(4)
        for model in (BASE, "one", "two")
        for temperature in (0, 1)
    ]
    alone = [engine.text(model, **changes) for model, changes in jobs]
    with ThreadPoolExecutor(len(jobs)) as pool:
        together = list(pool.map(lambda job: engine.text(job[0], **job[1]), jobs))
    assert together == alone
    assert len(set(alone)) > len(jobs) / 2


def test_64_streams_at_once_are_the_whole_texts(engine: Engine) -> None:
    def stream(number: int) -> str:
        body = {"model": BASE, "prompt": [number + 3], "max_tokens": 10, "temperature": 0, "stream": True}
        with engine.http.stream("POST", "/v1/completions", json=body) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
        assert events[-1] == "[DONE]"
        return "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1])

    with ThreadPoolExecutor(64) as pool:
        texts = list(pool.map(stream, range(64)))
    whole = [engine.text(prompt=[n + 3], max_tokens=10, ignore_eos=False) for n in range(64)]
    assert texts == whole


def test_a_completion_has_openais_shape(engine: Engine) -> None:
    body = engine.complete(max_tokens=3, logprobs=2).json()
    assert (body["object"], body["model"]) == ("text_completion", BASE)
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    choice = body["choices"][0]
    assert (choice["index"], choice["finish_reason"]) == (0, "length")
    logprobs = choice["logprobs"]
    assert [len(logprobs[key]) for key in ("tokens", "token_logprobs", "top_logprobs", "text_offset")] == [3] * 4
    assert max(logprobs["token_logprobs"]) <= 0
    assert logprobs["text_offset"][0] == 0
    models = engine.http.get("/v1/models").json()
    assert [model["id"] for model in models["data"]] == [BASE, "one", "two"]


def test_text_prompts_are_tokenized(engine: Engine) -> None:
    body = engine.complete(prompt="Hello, how can I help you today?" + " " * 5000, max_tokens=1)
    assert body.status_code == 400  # the long way, through a thread
    assert engine.complete(prompt="Hello", max_tokens=1).json()["usage"]["prompt_tokens"] < 6


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"model": "nobody"}, 404, "model_not_found"),
        ({"prompt": [1] * CONTEXT}, 400, "context_length_exceeded"),
        ({"prompt": [512]}, 400, "invalid_request"),
        ({"prompt": []}, 400, "invalid_request"),
        ({"top_p": 7, "max_tokens": 0}, 400, "invalid_request"),
    ],
)
def test_a_request_that_cannot_be_answered(
    engine: Engine, changes: dict[str, Any], status: int, code: str
) -> None:
    response = engine.complete(**changes)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["code"] == code
    assert set(error) == {"message", "type", "param", "code"}


def test_an_answer_ends_where_the_context_does(engine: Engine) -> None:
    body = engine.complete(prompt=[7] * (CONTEXT - 2), max_tokens=50).json()
    assert body["usage"]["completion_tokens"] == 2
    assert body["choices"][0]["finish_reason"] == "length"


def test_what_is_not_json_or_not_a_route(engine: Engine) -> None:
    assert engine.http.post("/v1/completions", content=b"{").status_code == 400  # no content type either
    nested = {"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}
    assert engine.http.post("/v1/completions", **nested).status_code == 400
    huge = {"content": b" " * 17_000_000, "headers": {"content-type": "application/json"}}
    assert engine.http.post("/v1/completions", **huge).status_code == 413
    assert engine.http.get("/v1/completions").status_code == 405
    assert engine.http.get("/v2").json()["error"]["code"] == "unknown_url"
    assert engine.text()


def test_every_route_but_health_wants_the_secret(engine: Engine) -> None:
    with httpx.Client(base_url=engine.url) as stranger:
        told = stranger.get("/health").json()
        assert (told["status"], told["model"]) == ("ok", BASE)
        for method, path in (
            ("GET", "/v1/models"),
            ("GET", "/metrics"),
            ("POST", "/v1/completions"),
            ("POST", "/v1/load_lora_adapter"),
            ("POST", "/v1/unload_lora_adapter"),
        ):
            assert stranger.request(method, path, json={}).status_code == 401
            wrong = {"authorization": "Bearer a secret of the hous"}
            assert stranger.request(method, path, json={}, headers=wrong).status_code == 401


def test_an_answer_ends_before_a_stop(engine: Engine) -> None:
    whole = engine.text(max_tokens=24)
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    for stream in (False, True):
        response = engine.complete(max_tokens=24, stop=["never said", stop], stream=stream)
        choices = [part["choices"][0] for part in parts(response)]
        assert "".join(choice["text"] for choice in choices) == whole[: whole.index(stop)]
        assert choices[-1]["finish_reason"] == "stop"


def test_samplings_change_the_answer_and_a_seed_repeats_it(engine: Engine) -> None:
    plain = {"temperature": 1.5, "seed": 3, "max_tokens": 24}
    first = engine.text(**plain)
    assert engine.text(**plain) == first
    greedy = engine.text(max_tokens=24)
    assert engine.text(**plain, top_k=1) == engine.text(**plain, min_p=1.0) == greedy != first
    assert engine.text(max_tokens=24, repetition_penalty=1.5) != greedy
    assert engine.text(max_tokens=24, frequency_penalty=2.0) != greedy


def test_a_prompt_is_read_once_for_those_who_share_it(engine: Engine) -> None:
    def reused(**changes: Any) -> float:
        before = engine.figures()["engine_prefix_cache_hits_total"]
        assert engine.complete(prompt=[17, 23] * 75, max_tokens=2, **changes).status_code == 200
        return engine.figures()["engine_prefix_cache_hits_total"] - before

    assert [reused(cache_salt="a"), reused(cache_salt="a"), reused(cache_salt="b"), reused()] == [0, 144, 0, 0]
    assert engine.figures()["engine_adapter_bytes"] > 0


def test_an_adapter_may_be_pinned(engine: Engine, models_dir: Path) -> None:
    body = {"lora_name": "kept", "lora_path": str(models_dir / "one")}

    def told() -> tuple[bool, bool]:
        cards = {card["id"]: card for card in engine.http.get("/v1/models").json()["data"]}
        return cards["kept"]["pinned"], cards["kept"]["bytes"] > 1000

    for pinned in (True, False):
        loaded = engine.http.post("/v1/load_lora_adapter", json={**body, "pinned": pinned})
        assert loaded.status_code == 200
        assert told() == (pinned, True)
    assert engine.http.post("/v1/load_lora_adapter", json={**body, "pinned": "yes"}).status_code == 400
    assert engine.http.post("/v1/unload_lora_adapter", json={"lora_name": "kept"}).status_code == 200


def test_n_choices_are_those_of_seeds_that_follow_each_other(engine: Engine) -> None:
    plain = {"temperature": 1.0, "max_tokens": 20, "prompt": [17, 29] * 75, "logprobs": 1}
    alone = [engine.complete("one", seed=40 + i, **plain).json()["choices"][0] for i in range(4)]
    assert len({choice["text"] for choice in alone}) == 4
    fresh = {**plain, "cache_salt": "n", "seed": 40, "n": 4}
    before = engine.figures()["engine_prefix_cache_hits_total"]
    body = engine.complete("one", **fresh).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2, 3]
    for choice, other in zip(body["choices"], alone, strict=True):
        assert (choice["text"], choice["finish_reason"]) == (other["text"], other["finish_reason"])
        assert choice["logprobs"]["tokens"] == other["logprobs"]["tokens"]
    assert body["usage"] == {"prompt_tokens": 150, "completion_tokens": 80, "total_tokens": 230}
    assert engine.figures()["engine_prefix_cache_hits_total"] - before == 3 * 144  # the prompt is read once
    streamed = parts(engine.complete("one", **fresh, stream=True, stream_options={"include_usage": True}))
    assert streamed.pop()["usage"] == body["usage"]
    choices = [choice for part in streamed for choice in part["choices"]]
    for i in range(4):
        mine = [choice for choice in choices if choice["index"] == i]
        assert "".join(choice["text"] for choice in mine) == alone[i]["text"]
        assert [choice["finish_reason"] for choice in mine if choice["finish_reason"]] == ["length"]


def test_a_choice_that_has_come_to_its_stop_leaves_the_others_alone(engine: Engine) -> None:
    plain = {"temperature": 1.0, "max_tokens": 60, "seed": 5}
    alone = [engine.text(**{**plain, "seed": 5 + i}) for i in range(3)]
    stop = alone[1][4:7]
    for stream in (False, True):
        choices = [
            c for part in parts(engine.complete(**plain, n=3, stop=stop, stream=stream)) for c in part["choices"]
        ]
        for i, text in enumerate(alone):
            mine = [choice for choice in choices if choice["index"] == i]
            assert "".join(choice["text"] for choice in mine) == text.partition(stop)[0]
            assert mine[-1]["finish_reason"] == ("stop" if stop in text else "length")
    engine.await_figure("engine_num_requests_running", 0)


def test_adapters_come_and_go(engine: Engine, models_dir: Path) -> None:
    assert engine.complete("third").status_code == 404
    assert engine.load("third", models_dir / "one").status_code == 200
    assert engine.load("third", models_dir / "one").status_code == 200
    assert engine.text("third") == engine.text("one") != engine.text("two")
    assert engine.load("third", models_dir / "two").status_code == 200
    assert engine.text("third") == engine.text("two")
    assert engine.figures()["engine_adapters_resident"] == 3
    unload = {"lora_name": "third"}
    assert engine.http.post("/v1/unload_lora_adapter", json=unload).status_code == 200
    assert engine.http.post("/v1/unload_lora_adapter", json=unload).status_code == 404
    assert engine.complete("third").status_code == 404


def test_files_that_are_spoilt_after_the_adapter_was_loaded(
    engine: Engine, models_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(models_dir / "one", folder)
    assert engine.load("spoilt", folder).status_code == 200
    (folder / "adapter_model.safetensors").write_bytes(b"no weights")
    assert engine.text("spoilt") == engine.text("one")
    engine.http.post("/v1/unload_lora_adapter", json={"lora_name": "spoilt"})
    assert engine.load("spoilt", folder).status_code == 400
    assert engine.complete("spoilt").status_code == 404
    assert engine.text("one")


def test_a_full_queue_says_when_to_come_again_and_empties(engine: Engine) -> None:
    engine.core.suspend()
    try:
        waiting = [engine.send(max_tokens=250) for _ in range(MOST_RUNNING + MOST_WAITING + 1)]
        [answered] = select.select(waiting, [], [], 60)[0]
        answer = b""
        while b"}}" not in answer:
            answer += answered.recv(4096)
        assert answer.startswith(b"HTTP/1.1 429")
        assert b"retry-after: 1" in answer
        assert b"queue_full" in answer
    finally:
        engine.core.resume()
    for connection in waiting:
        connection.close()
    engine.await_figure("engine_num_requests_waiting", 0)
    engine.await_figure("engine_num_requests_running", 0)
    assert engine.text()


@pytest.mark.parametrize("path", ["/nowhere", "relative", "/", "bad\0name", ""])
def test_a_folder_without_an_adapter(engine: Engine, path: str) -> None:
    before = engine.text("one")
    body = {"lora_name": "bad", "lora_path": path}
    assert engine.http.post("/v1/load_lora_adapter", json=body).status_code == 400
    assert engine.complete("bad").status_code == 404
    assert engine.text("one") == before
    assert engine.load(BASE, Path("/")).status_code == 400


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_place(engine: Engine, stream: bool) -> None:
    before = engine.figures()
    connections = [engine.send(max_tokens=250, stream=stream) for _ in range(20)]
    engine.await_figure("engine_num_requests_running", 20)
    for connection in connections:
        connection.close()
    engine.await_figure("engine_num_requests_running", 0)
    after = engine.figures()
    made = after["engine_generation_tokens_total"] - before["engine_generation_tokens_total"]
    assert made < 20 * 250
    assert engine.text()


def test_each_model_has_figures_of_its_own_for_as_long_as_it_is_there(engine: Engine, models_dir: Path) -> None:
    assert engine.load("measured", models_dir / "one").status_code == 200
    base = engine.series(BASE)
    engine.complete("measured", max_tokens=9)
    engine.complete("measured", max_tokens=5, n=2, seed=1, temperature=1)
    engine.complete("measured", max_tokens=5, stop_token_ids=list(range(512)))
    found = engine.series("measured")
    assert (found["engine_requests_total_length"], found["engine_requests_total_stop"]) == (2, 1)
    assert found["engine_prompt_tokens_total"] == 9
    assert found["engine_generation_tokens_total"] == 9 + 10 + 1
    assert found["engine_time_to_first_token_seconds_count"] == 3
    assert found["engine_request_queue_time_seconds_count"] == 3
    assert found["engine_request_time_per_output_token_seconds_count"] == 2  # one had a single token
    assert 0 < found["engine_time_to_first_token_seconds_sum"] < 60
    assert engine.series(BASE) == base
    before = engine.series("").get("engine_requests_total_model_not_found", 0)
    assert engine.complete("nobody").status_code == 404
    assert engine.series("")["engine_requests_total_model_not_found"] == before + 1
    assert engine.figures()["engine_batch_size_count"] > 0
    engine.http.post("/v1/unload_lora_adapter", json={"lora_name": "measured"})
    assert engine.series("measured") == {}


def test_a_deadline_that_passes_while_it_waits(engine: Engine) -> None:
    engine.core.suspend()
    try:
        response = engine.complete(timeout=0.05)
    finally:
        engine.core.resume()
    assert (response.status_code, response.json()["error"]["code"]) == (503, "queue_timeout")
    assert response.headers["retry-after"] == "1"
    engine.await_figure("engine_num_requests_waiting", 0)
    engine.await_figure("engine_num_requests_running", 0)
    assert engine.complete(timeout=60).status_code == 200


def test_a_deadline_that_passes_while_it_answers(engine: Engine) -> None:
    body = {"model": BASE, "prompt": [3], "max_tokens": 250, "ignore_eos": True, "stream": True, "timeout": 2}
    with engine.http.stream("POST", "/v1/completions", json=body) as response:
        lines = response.iter_lines()
        assert "choices" in next(lines)
        engine.core.suspend()
        try:
            events = [json.loads(line.removeprefix("data: ")) for line in lines if line]
        finally:
            engine.core.resume()
    assert events[-1]["error"]["code"] == "deadline_exceeded"
    engine.await_figure("engine_num_requests_running", 0)
    assert engine.text()


def test_the_front_has_no_torch(engine: Engine) -> None:
    """What the process has mapped: libtorch is in the core alone."""

    def has_torch(process: psutil.Process) -> bool:
        return any("libtorch" in part.path for part in process.memory_maps())

    assert not has_torch(psutil.Process(engine.process.pid))
    assert has_torch(engine.core)
    program = "import sys, app.processes.engine, app.implementations.serving.engine; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_the_client_of_the_gateway(engine: Engine, models_dir: Path) -> None:
    client = HttpEngineClient(EnginePlaces({BASE: engine.url}, SECRET), 30)
    short = AnswerOptions(max_tokens=12)
    assert client.resident() == [BASE]
    request = GenerationRequest(BASE, [5, 6, 7], short, adapter=Adapter("v:1", str(models_dir / "two")))
    answer = client.generate(request)
    assert answer == client.generate(request)
    assert answer.tokens.completion <= 12
    assert "".join(piece.text for piece in client.stream(request)) == answer.text
    base = client.generate(GenerationRequest(BASE, [5, 6, 7], short))
    assert base.text != answer.text
    with pytest.raises(Invalid, match="the model's context is 256"):
        client.generate(GenerationRequest(BASE, [5] * 300, short))
    with pytest.raises(Unavailable) as refused:
        client.generate(GenerationRequest(BASE, [5], short, adapter=Adapter("v:2", "/nowhere")))
    assert refused.value.code == "adapter_refused"


def test_the_operators_client(engine: Engine, models_dir: Path) -> None:
    admin = HttpEngineAdmin(EnginePlaces({BASE: engine.url}, SECRET), 60)
    adapter = Adapter("v:2", str(models_dir / "two"), pinned=True)
    assert admin.kind(BASE) is EngineKind.OURS
    admin.load(BASE, adapter)

    def told() -> tuple[bool | None, bool] | None:
        [state] = admin.states()
        assert (state.kind, state.context) == (EngineKind.OURS, CONTEXT)
        return next(((one.pinned, (one.bytes or 0) > 0) for one in state.adapters if one.name == "v:2"), None)

    assert told() == (True, True)
    assert admin.unload(BASE, "v:2") is True
    assert told() is None
    # As after a restart of the engine: the next request brings the pin along.
    client = HttpEngineClient(EnginePlaces({BASE: engine.url}, SECRET), 60)
    client.generate(GenerationRequest(BASE, [5, 6, 7], AnswerOptions(max_tokens=2), adapter=adapter))
    assert told() == (True, True)
    with pytest.raises(Invalid, match="cannot be read"):
        admin.load(BASE, Adapter("v:3", str(models_dir / "none")))
    admin.unload(BASE, "v:2")


def test_sigterm_lets_requests_finish_and_ends_both_processes(models_dir: Path) -> None:
    with running(models_dir) as engine:
        core = engine.core
        with ThreadPoolExecutor(2) as pool:
            answers = [pool.submit(engine.complete, max_tokens=250, stream=stream) for stream in (False, True)]
            engine.await_figure("engine_num_requests_running", 2)
            engine.process.send_signal(signal.SIGTERM)
            whole, stream = [answer.result() for answer in answers]
        assert stream.text.endswith("data: [DONE]\n\n")
        streamed = "".join(part["choices"][0]["text"] for part in parts(stream))
        assert streamed == whole.json()["choices"][0]["text"]
        assert engine.process.wait(10) == 0
        assert not core.is_running()


def test_the_front_ends_with_its_core(models_dir: Path) -> None:
    with running(models_dir) as engine:
        body = {"model": BASE, "prompt": [3], "max_tokens": 250, "ignore_eos": True, "stream": True}
        with engine.http.stream("POST", "/v1/completions", json=body) as response:
            lines = response.iter_lines()
            assert "choices" in next(lines)
            engine.core.kill()
            events = [json.loads(line.removeprefix("data: ")) for line in lines if line and "[DONE]" not in line]
        assert "error" in events[-1]
        assert engine.process.wait(10) == 1


def test_the_core_ends_with_its_front(models_dir: Path) -> None:
    with running(models_dir) as engine:
        core = engine.core
        engine.process.kill()
        _, alive = psutil.wait_procs([core], 10)
        assert not alive


def outcome(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def test_a_base_model_that_is_not_on_disk(tmp_path: Path) -> None:
    status, said = outcome(start(tmp_path, 0))
    assert status == 3
    assert said.count("\n") == 1
    assert "tiny-random" in said


@pytest.mark.parametrize(
    "options",
    [["--host", "0.0.0.0"], ["--threads", "0"], ["--port", "70000"], ["--base_model", "nobody"], ["--what"]],
)
def test_a_usage_error(models_dir: Path, options: list[str]) -> None:
    status, said = outcome(start(models_dir, 0, *options))
    assert status == 2
    assert "Traceback" not in said


def test_a_port_that_is_taken(models_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        status, said = outcome(start(models_dir, other.getsockname()[1]))
    assert status == 1
    assert "cannot listen" in said
