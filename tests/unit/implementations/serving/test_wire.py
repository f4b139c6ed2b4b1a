"""What a body may hold, and what is said of one that may not."""

import json
from typing import Any

import pytest

from app.implementations.serving.wire import CompletionBody, LoadAdapterBody, WireError, parse

GOOD = {"model": "tiny", "prompt": [1, 2]}


def refused(body: bytes) -> WireError:
    with pytest.raises(WireError) as caught:
        parse(CompletionBody, body)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"prompt": "text"},
        {"temperature": 0, "top_p": 1, "max_tokens": 1, "seed": -1, "logprobs": 0, "user": "u", "n": 1},
        {"stop_token_ids": None, "seed": None, "stream": True, "stream_options": {"include_usage": True}},
    ],
)
def test_bodies_that_are_taken(changes: dict[str, Any]) -> None:
    assert parse(CompletionBody, json.dumps({**GOOD, **changes}).encode()).model == "tiny"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", []),
        ("prompt", ""),
        ("prompt", [-1]),
        ("prompt", [1.5]),
        ("prompt", ["a"]),
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("top_p", 0),
        ("top_p", 1.01),
        ("seed", 2**63),
        ("logprobs", 21),
        ("n", 0),
        ("n", 65),
        ("stop", [""]),
        ("stream", "yes"),
        ("best_of", 3),
    ],
)
def test_a_faulty_field_is_named(field: str, value: Any) -> None:
    error = refused(json.dumps({**GOOD, field: value}).encode())
    assert error.param == field
    assert error.message.startswith(field)
    assert error.envelope()["error"]["type"] == "invalid_request_error"


def test_every_fault_at_once_but_not_a_million() -> None:
    message = refused(json.dumps({"prompt": [1], "top_p": 2, "max_tokens": -1}).encode()).message
    assert [part.split(":")[0] for part in message.split("; ")] == ["model", "max_tokens", "top_p"]
    assert len(refused(json.dumps({**GOOD, "prompt": ["x"] * 100_000}).encode()).message) < 2000


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"temperature": NaN}'])
def test_what_is_not_a_json_object(body: bytes) -> None:
    assert refused(body).message


def test_an_adapter_needs_a_name_and_a_path() -> None:
    with pytest.raises(WireError, match=r"lora_name: .*; lora_path: "):
        parse(LoadAdapterBody, b"{}")
