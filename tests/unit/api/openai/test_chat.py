"""/v1/chat/completions, as the official client speaks it."""

import openai as wire
import pytest
from pydantic import BaseModel

from app.core.entities.inference import AnswerOptions, ChatRequest
from app.core.errors import Conflict, Fault, Invalid, TooMany, Unavailable

BASE = "smollm2-135m-instruct"
MESSAGES = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "abc"}]
PLAIN = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "abc"}]


def ask(openai, **options):
    return openai.chat.completions.create(**{"model": BASE, "messages": MESSAGES, **options})


def test_an_answer(openai, twins):
    answer = ask(openai)
    assert answer.id.startswith("chatcmpl-")
    assert answer.to_dict() == {
        "id": answer.id,
        "object": "chat.completion",
        "created": answer.created,
        "model": BASE,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "cba", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6},
    }
    assert twins.inference.asked == [("default", ChatRequest(PLAIN, BASE, AnswerOptions(temperature=1, stop=[])))]


def test_what_was_asked_is_passed_on(openai, twins):
    asked = {"temperature": 0.5, "top_p": 0.5, "seed": 3, "presence_penalty": 1, "frequency_penalty": -1, "n": 2}
    ours = {"top_k": 4, "min_p": 0.1, "repetition_penalty": 1.1, "ignore_eos": True, "deadline_seconds": 2.5}
    ask(
        openai,
        **asked,
        stop="x",
        max_tokens=5,
        max_completion_tokens=9,
        user="u-1",
        metadata={"a": "b"},
        tools=[],
        logit_bias=None,
        extra_body={**ours, "conversation": "c-1"},
    )
    options = AnswerOptions(**asked, **ours, stop=["x"], max_tokens=9)
    assert twins.inference.asked == [("default", ChatRequest(PLAIN, BASE, options, "c-1"))]


def test_an_answer_can_be_sent_again_as_it_is(openai, twins):
    twins.inference.reasoning = "hm"
    said = ask(openai).choices[0].message
    assert said.reasoning_content == "hm"
    parts = [{"type": "text", "text": "And "}, {"type": "text", "text": "then?"}]
    ask(openai, messages=[*MESSAGES, said, {"role": "user", "content": parts}])
    again = [{"role": "assistant", "content": "cba"}, {"role": "user", "content": "And then?"}]
    assert twins.inference.asked[-1][1].messages == [*PLAIN, *again]


def test_logprobs(openai):
    [first, second] = ask(openai, n=2, logprobs=True, top_logprobs=1).choices
    assert first.logprobs == second.logprobs
    token, *_ = first.logprobs.content  # of each letter
    assert (token.token, token.logprob, token.bytes) == ("a", -0.5, [97])
    assert [(one.token, one.logprob) for one in token.top_logprobs] == [("a", -0.5)]
    assert ask(openai, logprobs=True).choices[0].logprobs.content[0].top_logprobs == []


class Parcel(BaseModel):
    late: bool


def test_a_schema_for_the_answer(openai, twins):
    schema = {"type": "object", "properties": {"late": {"type": "boolean"}}}
    with pytest.raises(ValueError, match="json"):  # the twin keeps to nothing
        openai.chat.completions.parse(model=BASE, messages=MESSAGES, response_format=Parcel)
    asked = twins.inference.asked[-1][1].options.json_schema
    assert asked["properties"]["late"]["type"] == "boolean"
    ask(openai, response_format={"type": "json_schema", "json_schema": {"name": "parcel", "schema": schema}})
    assert twins.inference.asked[-1][1].options.json_schema == schema
    ask(openai, response_format={"type": "json_object"})
    assert twins.inference.asked[-1][1].options.json_schema == {"type": "object"}
    ask(openai, response_format={"type": "text"})
    assert twins.inference.asked[-1][1].options.json_schema is None


@pytest.mark.parametrize("strict", ["yes", "true", 1, 0.0, [True], {}])
def test_whether_a_schema_is_strict_is_yes_or_no(openai, twins, strict):
    schema = {"name": "parcel", "schema": {"type": "object"}, "strict": strict}
    with pytest.raises(wire.BadRequestError) as caught:
        ask(openai, response_format={"type": "json_schema", "json_schema": schema})
    told = (caught.value.status_code, caught.value.code, caught.value.param)
    assert told == (400, "invalid_request", "response_format.json_schema.strict")
    assert not twins.inference.asked


def test_a_stream(openai, twins):
    chunks = list(ask(openai, stream=True))
    assert {(chunk.id, chunk.object, chunk.model) for chunk in chunks} == {
        (chunks[0].id, "chat.completion.chunk", BASE)
    }
    deltas = [(choice.delta.to_dict(), choice.finish_reason) for chunk in chunks for choice in chunk.choices]
    assert deltas == [
        ({"role": "assistant", "content": "", "refusal": None}, None),
        *(({"content": letter}, None) for letter in "cba"),
        ({}, "stop"),
    ]
    assert not any(chunk.usage for chunk in chunks)


def test_a_streams_usage_comes_last(openai):
    *chunks, last = ask(openai, stream=True, stream_options={"include_usage": True})
    assert (last.choices, last.usage.total_tokens) == ([], 6)
    assert not any(chunk.usage for chunk in chunks)


def test_a_streams_logprobs_and_reasoning(openai, twins):
    twins.inference.streams = "<think>hm</think>yes"
    chunks = list(ask(openai, stream=True, logprobs=True, top_logprobs=1))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    deltas = [choice.delta.to_dict() for choice in choices]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "hm"
    assert "".join(delta.get("content", "") for delta in deltas) == "yes"
    assert len([choice for choice in choices if choice.logprobs]) == len(twins.inference.streams)


def test_what_fails_on_the_way_is_an_error_of_the_stream(openai, twins):
    twins.inference.failure = Unavailable("it broke", code="engine_failed")
    stream = ask(openai, stream=True)
    with pytest.raises(wire.APIError, match="it broke") as caught:
        list(stream)
    assert (caught.value.code, caught.value.type) == ("engine_failed", "server_error")


def test_a_stream_that_is_closed_ends(openai, twins):
    with ask(openai, stream=True, messages=[{"role": "user", "content": "long" * 10_000}]) as stream:
        next(iter(stream))
    assert twins.inference.stream_ended.wait(10)


def test_every_fault_is_told_at_once(openai, twins):
    with pytest.raises(wire.BadRequestError) as caught:
        ask(
            openai,
            messages=[
                {"role": "user", "content": "x", "tool_call_id": "1"},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]},
            ],
            temperature=3,
            top_logprobs=1,
            tools=[{"type": "custom", "custom": {"name": "f"}}],
            logit_bias={"5": 1},
            extra_body={"temprature": 1},
        )
    assert (caught.value.status_code, caught.value.code) == (400, "invalid_request")
    named = {line.partition(":")[0] for line in caught.value.body["message"].splitlines()[1:]}
    assert named == {
        *("messages.0.tool_call_id", "messages.1.content.0", "temperature", "top_logprobs"),
        *("tools.0.type", "tools.0.function", "tools.0.custom", "logit_bias", "temprature"),
    }
    assert caught.value.param in named
    assert not twins.inference.asked


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Invalid("too long", faults=[Fault("messages", "x", "y")]), wire.BadRequestError),
        (TooMany("busy", code="engine_busy", retry_after=7), wire.RateLimitError),
        (Unavailable("away", code="engine_unavailable"), wire.InternalServerError),
        (Conflict("no"), wire.ConflictError),
        (RuntimeError("secret"), wire.InternalServerError),
    ],
)
def test_errors_are_the_clients_own(openai, twins, error, expected):
    twins.inference.error = error
    with pytest.raises(expected) as caught:
        ask(openai)
    assert caught.value.request_id == caught.value.response.headers["x-request-id"]
    assert "secret" not in str(caught.value.body)
    assert caught.value.response.headers.get("retry-after") == ("7" if expected is wire.RateLimitError else None)
    may_retry = caught.value.response.headers.get("x-should-retry")
    assert may_retry == ("false" if expected is wire.ConflictError else None)


def test_a_wrong_key(openai):
    with pytest.raises(wire.AuthenticationError) as caught:
        ask(openai.with_options(api_key="sk-wrong"))
    assert caught.value.code == "token_invalid"


def test_what_is_no_address_or_no_method(openai):
    with pytest.raises(wire.NotFoundError) as caught:
        openai.embeddings.create(model=BASE, input="x")
    assert caught.value.code == "not_found"
    with pytest.raises(wire.APIStatusError) as caught:
        openai.get("/chat/completions", cast_to=object)
    assert (caught.value.status_code, caught.value.code) == (405, "method_not_allowed")
