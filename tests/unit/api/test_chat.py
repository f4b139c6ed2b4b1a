"""/api/v1/chat over the twins: what is passed on, and the frames of a stream."""

import json
import socket

import pytest

from app.core.entities.identity import Role
from app.core.entities.inference import AnswerOptions, ChatRequest
from app.core.errors import Invalid, TooMany, Unavailable
from app.gateway.streams import Streams

PATH = "/api/v1/chat"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "abc"}]


def frames(answer):
    """(event's name, data)"""
    found = []
    for text in answer.text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in text.splitlines())
        found.append((fields.get("event"), json.loads(fields["data"])))
    return found


def test_what_was_asked_is_passed_on(caller, twins):
    asked = {"temperature": 1, "top_p": 0.5, "top_k": 4, "min_p": 0.1, "seed": 3, "stop": ["x"], "max_tokens": 9}
    penalties = {"repetition_penalty": 1.1, "presence_penalty": 1, "frequency_penalty": -1, "ignore_eos": True}
    others = {"json_schema": {"type": "object"}, "deadline_seconds": 2.5}
    body = {"messages": MESSAGES, "model": "m:2", "conversation": "c-1", **asked, **penalties, **others}
    answer = caller("POST", PATH, json=body)
    assert answer.status_code == 200, answer.json
    assert answer.json == {
        "message": {"role": "assistant", "content": "cba", "reasoning": None},
        "finish_reason": "stop",
        "logprobs": None,
        "model": "m:2",
        "usage": {"prompt_tokens": 3, "completion_tokens": 3},
        "alternatives": [],
    }
    options = AnswerOptions(**asked, **penalties, **others)
    assert twins.inference.asked == [("default", ChatRequest(MESSAGES, "m:2", options, "c-1"))]


def test_several_answers_with_logprobs(caller, twins):
    answer = caller("POST", PATH, json={"messages": MESSAGES, "n": 2, "logprobs": True, "top_logprobs": 4})
    logprobs = [{"token": "a", "logprob": -0.5, "top": {"a": -0.5}}]
    assert answer.json["logprobs"] == logprobs
    message = {"role": "assistant", "content": "cba", "reasoning": None}
    assert answer.json["alternatives"] == [{"message": message, "finish_reason": "stop", "logprobs": logprobs}]
    assert twins.inference.asked[0][1].options.logprobs == 4


def test_a_stream(caller, twins):
    answer = caller("POST", PATH, json={"messages": MESSAGES, "stream": True})
    assert (answer.status_code, answer.content_type) == (200, "text/event-stream; charset=utf-8")
    assert (answer.headers["X-Accel-Buffering"], answer.headers["Cache-Control"]) == ("no", "no-store")
    assert "X-Request-ID" in answer.headers
    usage = {"prompt_tokens": 3, "completion_tokens": 3}
    last = {"finish_reason": "stop", "model": "smollm2-135m-instruct", "usage": usage}
    assert frames(answer) == [*((None, {"content": letter}) for letter in "cba"), (None, last)]
    assert twins.inference.ended == 1


def test_reasoning_and_logprobs_in_a_stream(caller):
    thinking = "42>kniht/<mh>kniht<"
    body = {"messages": [{"role": "user", "content": thinking}], "stream": True, "logprobs": True}
    *told, _ = frames(caller("POST", PATH, json=body))
    assert "".join(data.get("reasoning", "") for _, data in told) == "hm"
    assert "".join(data.get("content", "") for _, data in told) == "24"
    assert sum(len(data.get("logprobs", ())) for _, data in told) == len(thinking)


@pytest.mark.parametrize(
    "error",
    [
        Invalid("the prompt has 300 tokens"),
        TooMany("too much to do", code="engine_busy", retry_after=7),
        Unavailable("not resident", code="base_not_resident", retry_after=3),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_hinders_an_answer_is_a_status(caller, twins, error, stream):
    twins.inference.error = error
    answer = caller("POST", PATH, json={"messages": MESSAGES, "stream": stream})
    assert (answer.status_code, answer.content_type) == (error.status, "application/problem+json")
    assert (answer.json["code"], answer.json["detail"]) == (error.code, error.message)
    assert answer.headers.get("Retry-After") == (str(error.retry_after) if error.retry_after else None)


def test_a_client_that_goes_away_ends_a_whole_answer(caller, twins):
    here, there = socket.socketpair()
    with here:
        waiting = caller("POST", PATH, json={"messages": MESSAGES}, environ_base={"gunicorn.socket": here})
        assert waiting.status_code == 200
        there.close()
        gone = caller("POST", PATH, json={"messages": MESSAGES}, environ_base={"gunicorn.socket": here})
    assert gone.json["code"] == "client_gone"


def test_what_fails_on_the_way_is_an_event(caller, twins):
    twins.inference.failure = Unavailable("it failed", code="engine_failed")
    told = frames(caller("POST", PATH, json={"messages": MESSAGES, "stream": True}))
    assert told == [(None, {"content": "c"}), ("error", {"code": "engine_failed", "message": "it failed"})]


@pytest.mark.parametrize("read", [0, 1])
def test_a_client_that_goes_away_ends_the_answer_and_leaves_its_room(app, caller, twins, monkeypatch, read):
    monkeypatch.setitem(app.extensions, "streams", Streams(most=1))
    body = {"messages": MESSAGES, "stream": True}
    answer = caller("POST", PATH, json=body, buffered=False)
    for _ in zip(range(read), answer.iter_encoded(), strict=False):
        pass
    refused = caller("POST", PATH, json=body)
    assert (refused.status_code, refused.json["code"]) == (503, "too_many_streams")
    assert twins.inference.ended == 0
    answer.close()
    assert twins.inference.ended == 1
    assert caller("POST", PATH, json=body).status_code == 200


def test_room_is_left_again_by_a_stream_that_never_began(app, caller, twins, monkeypatch):
    monkeypatch.setitem(app.extensions, "streams", Streams(most=1))
    twins.inference.error = Unavailable("nobody")
    for _ in range(2):
        assert caller("POST", PATH, json={"messages": MESSAGES, "stream": True}).json["code"] == "unavailable"


@pytest.mark.parametrize(("grace", "end"), [(-1.0, "error"), (60.0, None)])
def test_a_process_that_stops_gives_an_answer_a_moment(app, caller, monkeypatch, grace, end):
    monkeypatch.setattr("app.gateway.streams.GRACE_SECONDS", grace)
    streams = Streams(most=1)
    monkeypatch.setitem(app.extensions, "streams", streams)
    streams.end()
    told = frames(caller("POST", PATH, json={"messages": MESSAGES, "stream": True}))
    assert told[0] == (None, {"content": "c"})
    assert told[-1][0] == end


def test_another_projects_caller_asks_for_itself(client, bearer, twins):
    client.post(PATH, json={"messages": MESSAGES}, headers=bearer(Role.VIEWER, "other"))
    assert twins.inference.asked[0][0] == "other"
