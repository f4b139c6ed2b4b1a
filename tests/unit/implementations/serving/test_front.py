"""What the front answers by itself, when the core is loading, busy, stopping or gone."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from app.implementations.models.random_model import write_random_tokenizer
from app.implementations.serving.core_link import CoreLink
from app.implementations.serving.front import Front
from app.implementations.serving.http_server import Request, Response
from app.implementations.serving.messages import Ready, Sampling, Submit
from app.implementations.serving.ticket import CoreFailure, Ticket

READY = Ready(256, 512, [2])
COMPLETION = {"model": "tiny", "prompt": [1]}


def ask(front: Front, method: str, path: str, body: Any = None) -> Response:
    content = json.dumps(body).encode()
    return asyncio.run(front.handle(Request(method, path, {"content-type": "application/json"}, content)))


def code_of(response: Response) -> str:
    assert isinstance(response.body, bytes)
    return str(json.loads(response.body)["error"]["code"])


@pytest.fixture
def link() -> CoreLink:
    link = CoreLink()
    link.ready = READY
    return link


@pytest.fixture
def front(link: CoreLink, tmp_path: Path) -> Front:
    return Front("tiny", write_random_tokenizer("llama", tmp_path), link, None, most_requests=0)


def test_a_full_queue_says_when_to_come_again(front: Front) -> None:
    response = ask(front, "POST", "/v1/completions", COMPLETION)
    assert (response.status, code_of(response)) == (429, "queue_full")
    assert dict(response.headers)["retry-after"] == "1"
    assert ask(front, "POST", "/v1/completions", {**COMPLETION, "model": "no"}).status == 404


def test_a_deadline_says_what_it_ended() -> None:
    async def ended(started: bool) -> CoreFailure:
        ticket = Ticket(CoreLink(), [Submit(1, [1], Sampling(1))], 0.001)
        if started:
            ticket.start(0.5, 0)
        with pytest.raises(CoreFailure) as caught:
            await ticket.tokens()
        return caught.value

    waiting, answering = (asyncio.run(ended(started)) for started in (False, True))
    assert (waiting.status, waiting.code) == (503, "queue_timeout")
    assert (answering.status, answering.code) == (504, "deadline_exceeded")


def test_each_choice_counts_for_the_queue(tmp_path: Path, link: CoreLink) -> None:
    link.lost.set()  # whoever is let in hears of that
    front = Front("tiny", write_random_tokenizer("llama", tmp_path), link, None, most_requests=3)
    statuses = [ask(front, "POST", "/v1/completions", {**COMPLETION, "n": n}).status for n in (3, 4)]
    assert statuses == [503, 429]


@pytest.mark.parametrize("state", ["loading", "stopping"])
def test_an_engine_that_is_not_there_yet_or_no_more(front: Front, link: CoreLink, state: str) -> None:
    if state == "loading":
        link.ready = None
    else:
        front.draining = True
    response = ask(front, "GET", "/health")
    assert response.status == 503
    assert isinstance(response.body, bytes)
    assert json.loads(response.body)["status"] == state
    response = ask(front, "POST", "/v1/completions", COMPLETION)
    assert (response.status, code_of(response)) == (503, "engine_unavailable")
    assert dict(response.headers)["retry-after"] == "2"


def test_a_core_that_is_lost_fails_who_waits_for_it(tmp_path: Path, link: CoreLink) -> None:
    link.lost.set()
    front = Front("tiny", write_random_tokenizer("llama", tmp_path), link, None, most_requests=1)
    response = ask(front, "POST", "/v1/completions", COMPLETION)
    assert (response.status, code_of(response)) == (503, "engine_failed")
    assert link.idle.is_set()
    response = ask(front, "POST", "/v1/load_lora_adapter", {"lora_name": "a", "lora_path": "/a"})
    assert (response.status, code_of(response)) == (503, "engine_failed")


class LabelLink(CoreLink):
    """Of a core with a label head; a text of the token 9 fails."""

    async def classify(self, ids: Sequence[int]) -> Sequence[float]:
        if list(ids) == [9]:
            raise CoreFailure(500, "failed", "engine_failed")
        return [0.25, 0.75]


@pytest.fixture
def labels(tmp_path: Path) -> Front:
    link = LabelLink()
    link.ready = Ready(4, 512, [], ["delivery", "defect"])
    return Front("v1", write_random_tokenizer("llama", tmp_path), link, None, most_requests=2)


@pytest.mark.parametrize(("texts", "count", "tokens"), [([1, 2], 1, 2), ([[1, 2], [3]], 2, 3)])
def test_labels_as_vllm_tells_them(labels: Front, texts: Any, count: int, tokens: int) -> None:
    response = ask(labels, "POST", "/classify", {"model": "v1", "input": texts})
    assert response.status == 200
    assert isinstance(response.body, bytes)
    told = json.loads(response.body)
    one = {"label": "defect", "probs": [0.25, 0.75], "num_classes": 2}
    assert told["data"] == [{"index": place, **one} for place in range(count)]
    assert told["labels"] == ["delivery", "defect"]
    assert told["usage"]["prompt_tokens"] == tokens


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"input": [[1], []]}, 400, "invalid_request"),
        ({"input": []}, 400, "invalid_request"),
        ({"input": [512]}, 400, "invalid_request"),
        ({"input": [1, 2, 3, 4, 5]}, 400, "context_length_exceeded"),
        ({"input": [[1], [2], [3]]}, 429, "queue_full"),
        ({"input": [1], "model": "another"}, 404, "model_not_found"),
        ({"input": [9]}, 500, "engine_failed"),
        ({"input": [1], "temperature": 1}, 400, "invalid_request"),
    ],
)
def test_texts_that_are_not_classified(labels: Front, body: Any, status: int, code: str) -> None:
    response = ask(labels, "POST", "/classify", {"model": "v1", **body})
    assert (response.status, code_of(response)) == (status, code)


def test_a_label_head_writes_nothing_and_what_writes_has_no_labels(front: Front, labels: Front) -> None:
    refused = ask(labels, "POST", "/v1/completions", {**COMPLETION, "model": "v1"})
    assert (refused.status, code_of(refused)) == (400, "not_generative")
    refused = ask(front, "POST", "/classify", {"model": "tiny", "input": [1]})
    assert (refused.status, code_of(refused)) == (400, "no_label_head")
