"""The official client, the gateway and the engine: what is asked under /v1 reaches the model."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import BadRequestError, OpenAI
from pydantic import SecretStr
from werkzeug.serving import make_server

from app import create_app
from app.bootstrap import load_settings, prepare_instance
from tests.running_engine import BASE, SECRET, Engine

PASSWORD = "correct horse battery"
MESSAGES = [{"role": "user", "content": "How long?"}]


@pytest.fixture(scope="module")
def client(engine: Engine, models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    root = tmp_path_factory.mktemp("service")
    app = create_app(
        load_settings(
            instance_dir=root / "instance",
            data_dir=root / "data",
            models_dir=models_dir,
            engines={BASE: engine.url},
            engine_secret=SecretStr(SECRET),
            admin_password=SecretStr(PASSWORD),
            model_redirects={"gpt-4o-mini": BASE},
        )
    )
    prepare_instance(app)
    login = {"username": "admin", "password": PASSWORD}
    token = app.test_client().post("/api/v1/auth/token", json=login).json["access_token"]
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    with OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key=token, max_retries=0) as client:
        yield client
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_stream_is_the_whole_answer(client: OpenAI) -> None:
    asked = {"model": BASE, "messages": MESSAGES, "max_tokens": 12, "seed": 5, "n": 2, "logprobs": True}
    whole = client.chat.completions.create(**asked, top_logprobs=2)
    streamed = ["", ""]
    tokens: list[list[str]] = [[], []]
    usage = None
    for chunk in client.chat.completions.create(
        **asked, top_logprobs=2, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
            tokens[choice.index] += [one.token for one in choice.logprobs.content] if choice.logprobs else []
    assert streamed == [choice.message.content for choice in whole.choices]
    assert streamed[0] != streamed[1]
    assert tokens == [[one.token for one in choice.logprobs.content] for choice in whole.choices]
    assert all(len(one.top_logprobs) == 2 for one in whole.choices[0].logprobs.content)
    assert usage == whole.usage


def test_an_old_name_lands_on_a_model_here(client: OpenAI) -> None:
    asked = {"messages": MESSAGES, "max_tokens": 8, "temperature": 0}
    old = client.chat.completions.create(model="gpt-4o-mini", **asked)
    assert old.model == BASE
    assert old.choices[0] == client.chat.completions.create(model=BASE, **asked).choices[0]
    assert BASE in [model.id for model in client.models.list()]


def test_an_answer_that_keeps_to_a_schema(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"late": {"type": "boolean"}}, "required": ["late"]}
    schema["additionalProperties"] = False
    shape = {"type": "json_schema", "json_schema": {"name": "parcel", "schema": schema, "strict": True}}
    said = client.chat.completions.create(model=BASE, messages=MESSAGES, response_format=shape, max_tokens=100)
    assert isinstance(json.loads(said.choices[0].message.content)["late"], bool)


def test_a_text_that_goes_on(client: OpenAI, engine: Engine) -> None:
    said = client.completions.create(model=BASE, prompt=["abc", "d"], max_tokens=6, temperature=0)
    assert [choice.text for choice in said.choices] == [
        engine.text(prompt=prompt, max_tokens=6, ignore_eos=False) for prompt in ("abc", "d")
    ]


def test_token_ids_that_go_on(client: OpenAI, engine: Engine) -> None:
    said = client.completions.create(model=BASE, prompt=[[5, 6, 7], [8]], max_tokens=6, temperature=0)
    texts = [engine.text(prompt=prompt, max_tokens=6, ignore_eos=False) for prompt in ([5, 6, 7], [8])]
    assert [choice.text for choice in said.choices] == texts
    with pytest.raises(BadRequestError, match="vocabulary"):
        client.completions.create(model=BASE, prompt=[2**30])


def test_what_the_engine_refuses_is_a_bad_request(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(model=BASE, messages=[{"role": "user", "content": "a" * 10_000}])
    assert caught.value.code == "invalid_request"


def test_a_model_whose_template_knows_no_tools(client: OpenAI) -> None:
    tools = [{"type": "function", "function": {"name": "parcel"}}]
    with pytest.raises(BadRequestError) as caught:
        client.chat.completions.create(model=BASE, messages=MESSAGES, tools=tools)
    assert (caught.value.code, caught.value.param) == ("tools_not_supported", "tools")
    asked = {"model": BASE, "messages": MESSAGES, "max_tokens": 8, "temperature": 0}
    not_told = client.chat.completions.create(**asked, tools=tools, tool_choice="none")
    assert not_told.choices == client.chat.completions.create(**asked).choices
