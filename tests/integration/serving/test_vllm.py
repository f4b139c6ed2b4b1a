"""vLLM's CPU build and this engine behind the same client, held to the same checks.

vLLM's environment is made by the benchmarks' script, in ``VLLM_ENVS`` or where the benchmarks have it.
"""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from app.core.entities.inference import Adapter
from app.core.errors import Invalid, Unavailable
from app.implementations.queue.process_tree import kill_session
from app.implementations.serving.engine_client import HttpEngineClient
from app.implementations.serving.places import EnginePlaces
from benchmarks.environments import ready
from benchmarks.processes import ROOT
from tests.running_engine import BASE, SECRET, Engine, asked, free_port, parts, running
from tests.serving_models import CONTEXT, write_adapter, write_base

pytestmark = pytest.mark.slow

STARTS = 3000  # looks at /health, a tenth of a second apart
PROMPT = [5, 6, 7, 8, 9]
RUNNING = ("engine_num_requests_running", "vllm:num_requests_running")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the base, its heads as wide as vLLM's smallest, and an adapter beside it."""
    root = tmp_path_factory.mktemp("house")
    write_base(root / "base" / BASE, head_dim=32)
    write_adapter(root / "base" / BASE, root / "one", 1)
    return root


@contextmanager
def vllm(house: Path) -> Iterator[Engine]:
    python = ready("vllm", Path(os.environ.get("VLLM_ENVS", ROOT / "benchmarks" / ".envs")))
    port = free_port()
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(house / "base" / BASE)]
    command += ["--served-model-name", BASE, "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--api-key", SECRET, "--enable-lora", "--max-lora-rank", "8", "--max-model-len", str(CONTEXT)]
    variables = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    }
    with (house / "vllm.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=house, env=variables, stdout=log, stderr=log, start_new_session=True
        )
    engine = Engine(process, port)  # type: ignore[arg-type]
    try:
        for _ in range(STARTS):
            assert process.poll() is None, (house / "vllm.log").read_text()[-3000:]
            if _is_ready(engine):
                break
            threading.Event().wait(0.1)
        yield engine
    finally:
        kill_session(process.pid)
        process.wait()
        engine.http.close()


def _is_ready(engine: Engine) -> bool:
    try:
        return engine.http.get("/health").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module", params=[running, vllm])
def server(request: pytest.FixtureRequest, house: Path) -> Iterator[Engine]:
    with request.param(house) as engine:
        yield engine


@pytest.fixture(scope="module")
def client(server: Engine) -> HttpEngineClient:
    return HttpEngineClient(EnginePlaces({BASE: server.url}, SECRET), 60)


def reference(house: Path, adapter: str | None) -> str:
    """What transformers and PEFT answer to ``PROMPT``, in 12 tokens."""
    network: Any = LlamaForCausalLM.from_pretrained(house / "base" / BASE)
    if adapter:
        network = PeftModel.from_pretrained(network, house / adapter)
    ids = torch.tensor([PROMPT])
    output = network.generate(input_ids=ids, do_sample=False, max_new_tokens=12, eos_token_id=-1, pad_token_id=0)
    tokenizer = Tokenizer.from_file(str(house / "base" / BASE / "tokenizer.json"))
    return str(tokenizer.decode(output[0, len(PROMPT) :].tolist(), skip_special_tokens=True)).rstrip("\ufffd")


def test_the_client_is_answered(client: HttpEngineClient, server: Engine, house: Path) -> None:
    assert client.resident() == [BASE]
    answer = client.generate(asked(PROMPT, 12))
    assert answer == client.generate(asked(PROMPT, 12))
    assert answer.text
    assert server.text(prompt=PROMPT, max_tokens=12).rstrip("\ufffd") == reference(house, None)


def test_the_client_loads_an_adapter_that_is_not_there(
    client: HttpEngineClient, server: Engine, house: Path
) -> None:
    assert server.complete("v:1").status_code == 404
    adapter = Adapter("v:1", str(house / "one"))
    answer = client.generate(asked(PROMPT, 12, adapter))
    assert answer.text != client.generate(asked(PROMPT, 12)).text
    assert server.text("v:1", prompt=PROMPT, max_tokens=12).rstrip("\ufffd") == reference(house, "one")
    assert "v:1" in [model["id"] for model in server.http.get("/v1/models").json()["data"]]
    assert server.http.post("/v1/unload_lora_adapter", json={"lora_name": "v:1"}).status_code == 200
    assert server.complete("v:1").status_code == 404
    assert client.generate(asked(PROMPT, 12, adapter)) == answer


def test_an_adapter_that_is_none(client: HttpEngineClient) -> None:
    with pytest.raises(Unavailable) as refused:
        client.generate(asked(PROMPT, 1, Adapter("v:2", "/nowhere")))
    assert refused.value.code == "adapter_refused"


def test_a_prompt_beyond_the_context(client: HttpEngineClient) -> None:
    with pytest.raises(Invalid):
        client.generate(asked([5] * (CONTEXT + 10), 4))


def test_every_sampling_field_is_taken(server: Engine) -> None:
    fields = {"top_p": 0.9, "top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1, "presence_penalty": 0.1}
    more = {"frequency_penalty": 0.2, "seed": 7, "stop": ["zzz"], "stop_token_ids": [3], "cache_salt": "a"}
    response = server.complete(temperature=0.8, **fields, **more)
    assert response.status_code == 200, response.text
    assert server.complete(temperature=0.8, **fields, **more).json()["choices"] == response.json()["choices"]
    assert server.text(temperature=1.0, top_k=1) == server.text()


def test_stops(server: Engine) -> None:
    whole = server.text(max_tokens=24)
    stop = whole[8:11]
    body = server.complete(max_tokens=24, stop=[stop]).json()
    assert body["choices"][0]["text"] == whole[: whole.index(stop)]
    assert body["choices"][0]["finish_reason"] == "stop"


def test_a_stream_is_the_whole_text(server: Engine) -> None:
    response = server.complete(max_tokens=20, stream=True, stream_options={"include_usage": True})
    *chunks, last = parts(response)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == server.text(max_tokens=20)
    assert last["usage"]["completion_tokens"] == 20


def test_logprobs(server: Engine) -> None:
    block = server.complete(max_tokens=3, logprobs=2).json()["choices"][0]["logprobs"]
    assert [len(block[key]) for key in ("tokens", "token_logprobs", "top_logprobs", "text_offset")] == [3] * 4
    assert max(block["token_logprobs"]) <= 0


def test_choices(server: Engine) -> None:
    body = server.complete(n=3, temperature=1.0, seed=1).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert len({choice["text"] for choice in body["choices"]}) == 3
    assert body["usage"]["prompt_tokens"] == 3


def test_json_of_a_schema(server: Engine) -> None:
    schema = {
        "type": "array",
        "prefixItems": [{"enum": ["a", "b"]}, {"type": "boolean"}],
        "items": False,
        "minItems": 2,
    }
    asked_for = {"structured_outputs": {"json": schema}, "ignore_eos": False}
    body = server.complete(**asked_for, max_tokens=60, temperature=1.0, seed=1).json()
    choice = body["choices"][0]
    assert choice["finish_reason"] == "stop"
    jsonschema.validate(json.loads(choice["text"]), schema)
    refused = server.complete(structured_outputs={"json": {"type": "nothing"}})
    assert refused.status_code == 400


def test_a_client_that_goes_away(server: Engine) -> None:
    connections = [server.send(max_tokens=240) for _ in range(8)]
    for connection in connections:
        connection.close()
    name = next(name for name in RUNNING if name in server.figures())
    server.await_figure(name, 0)
    assert server.text()
