"""What is kept of compiled schemas, and what is not."""

import json
import queue
from pathlib import Path

import pytest
import torch

from app.implementations.serving import schemas
from app.implementations.serving.schemas import SchemaRefused, Schemas
from tests.serving_models import VOCABULARY

END = 2


@pytest.fixture
def woken() -> "queue.Queue[None]":
    return queue.Queue()


@pytest.fixture
def known(base_folder: Path, woken: "queue.Queue[None]") -> Schemas:
    return Schemas(base_folder / "tokenizer.json", VOCABULARY, [END], lambda: woken.put(None))


def of(number: int) -> str:
    return json.dumps({"const": number})


def test_a_schema_is_compiled_once_and_its_guides_are_apart(known: Schemas, woken: "queue.Queue[None]") -> None:
    compiled = known.compile(of(77)).result(60)
    woken.get(timeout=60)
    assert known.compile(of(77)).result() is compiled
    one, other = compiled.guide(), compiled.guide()
    logits = torch.randn(VOCABULARY)
    first = one.allow(logits)
    allowed = first.isfinite()
    assert 0 < int(allowed.sum()) < VOCABULARY / 2
    assert torch.equal(first[allowed], logits[allowed])
    one.take(int(first.argmax()))
    while int(one.allow(logits).argmax()) != END:
        one.take(int(one.allow(logits).argmax()))
    assert int(one.allow(logits).isfinite().sum()) == 1
    assert torch.equal(other.allow(logits), first)


def test_those_in_use_are_not_forgotten(known: Schemas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "MOST_KEPT", 2)
    first, second = (known.compile(of(number)).result(60) for number in (1, 2))
    guides = [first.guide(), second.guide()]
    with pytest.raises(SchemaRefused, match="2 other JSON schemas are in use") as busy:
        known.compile(of(3))
    assert busy.value.status == 503
    del guides[0]
    known.compile(of(3)).result(60)
    assert known.compile(of(2)).result(60) is second
    assert known.compile(of(1)).result(60) is not first


def test_a_failure_by_chance_is_tried_again(
    known: Schemas, monkeypatch: pytest.MonkeyPatch, woken: "queue.Queue[None]"
) -> None:
    for name, value in (("TRIAL_MODULE", "app.processes.none_such"), ("TRIAL_SECONDS", 0.0)):
        with monkeypatch.context() as patch:
            patch.setattr(schemas, name, value)
            assert known.compile(of(5)).exception(60) is not None
            woken.get(timeout=60)
    assert known.compile(of(5)).result(60)
    refused = known.compile('{"type": "nothing"}')
    with pytest.raises(SchemaRefused, match="nothing"):
        refused.result(60)
    assert known.compile('{"type": "nothing"}') is refused
