"""Talking to a model and measuring it, with a twin that recites."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from app.core.entities.datasets import TokenizedRow
from app.core.entities.inference import SamplingOptions
from app.core.errors import Invalid, NotFound
from app.core.interfaces.components import ChatTokenizer, LanguageModel
from app.core.interfaces.stores import Stores
from app.implementations.data.store import FileDatasetStore
from app.implementations.data.token_cache import FileTokenCache
from app.implementations.models.base_models import FolderBaseModelStore
from app.implementations.registry.artifacts import FolderArtifactStore
from app.lab.service import LabService
from app.registries import BASE_MODEL_SOURCES, DATA_FORMATS
from tests.databases import Versions

SAMPLING = SamplingOptions(temperature=0.5)
LOSS = math.log(7)


class Recited(LanguageModel):
    """Says the same whatever it is asked; half of the tokens of a row cost ``LOSS``."""

    context = 120

    def __init__(self, tokenizer: ChatTokenizer, said: str, arguments: dict[str, Any]) -> None:
        self.tokenizer, self.said, self.arguments = tokenizer, said, arguments
        self.asked: list[tuple[str, SamplingOptions]] = []

    def tokens(self, prompt: Sequence[int], sampling: SamplingOptions) -> Iterator[int]:
        self.asked.append((self.tokenizer.decode(prompt), sampling))
        yield from self.tokenizer.encode_text(self.said)[:-1]

    def loss(self, row: TokenizedRow) -> float:
        assert len(row.input_ids) <= self.context
        return row.supervised * LOSS


@pytest.fixture
def models() -> list[Recited]:
    """Those that were built."""
    return []


@pytest.fixture
def service(tmp_path: Path, database: Engine, models: list[Recited]) -> LabService:
    catalogue = tmp_path / "base_models.yaml"
    catalogue.write_text("tiny: {source: random, location: llama}\n")
    bases = FolderBaseModelStore(catalogue, tmp_path / "base", BASE_MODEL_SOURCES)
    bases.pull("tiny")
    tokenizer = bases.tokenizer("tiny")

    def build(**arguments: Any) -> Recited:
        models.append(Recited(tokenizer, "九点 – at nine.", arguments))
        return models[-1]

    stores = Stores(
        versions=Versions(database),
        bases=bases,
        datasets=FileDatasetStore(tmp_path, [DATA_FORMATS.create("messages"), DATA_FORMATS.create("text")], 10**6),
        artifacts=FolderArtifactStore(tmp_path / "registry"),
        tokens=FileTokenCache(),
    )
    return LabService(stores, build, threads=3)


def test_an_answer_comes_in_whole_characters(service: LabService) -> None:
    pieces = list(service.chat("tiny").say("When?", SAMPLING))
    assert "".join(pieces) == "九点 – at nine."
    assert len(pieces) > 4
    assert not any("\ufffd" in piece for piece in pieces)


def test_half_a_character_at_the_end_is_shown_as_such(service: LabService, models: list[Recited]) -> None:
    chat = service.chat("tiny")
    whole = models[0].tokenizer.encode_text("a九")[:-1]
    models[0].tokens = lambda *_: iter(whole[:-1])  # type: ignore[method-assign]
    assert "".join(chat.say("When?", SAMPLING)) == "a\ufffd"


def test_a_chat_remembers_until_it_is_told_to_forget(service: LabService, models: list[Recited]) -> None:
    chat = service.chat("tiny", seed=5)
    for text in ("Open?", "Closed?"):
        list(chat.say(text, replace(SAMPLING, max_tokens=9)))
    chat.forget()
    list(chat.say("Hello?", replace(SAMPLING, max_tokens=9)))
    asked = models[0].asked
    assert asked[1][0] == f"user\nOpen?\nassistant\n{models[0].said}\nuser\nClosed?\nassistant\n"
    assert asked[2][0] == "user\nHello?\nassistant\n"
    assert {sampling for _, sampling in asked} == {replace(SAMPLING, max_tokens=9)}
    assert models[0].arguments["seed"] == 5
    assert models[0].arguments["threads"] == 3
    assert models[0].arguments["adapter_folder"] is None
    assert models[0].arguments["folder"].name == "tiny"


def test_an_answer_that_is_cut_short_was_said_so_far(service: LabService, models: list[Recited]) -> None:
    chat = service.chat("tiny")
    answer = chat.say("Open?", SAMPLING)
    first = next(answer)
    answer.close()  # type: ignore[attr-defined]
    list(chat.say("And?", SAMPLING))
    assert models[0].asked[1][0] == f"user\nOpen?\nassistant\n{first}\nuser\nAnd?\nassistant\n"


def test_what_no_longer_fits_is_dropped_from_the_front(service: LabService, models: list[Recited]) -> None:
    chat = service.chat("tiny")
    for number in range(8):
        list(chat.say(f"Question {number}?", SAMPLING))
    last = models[0].asked[-1][0]
    assert "Question 0?" not in last
    assert "Question 6?" in last
    assert last.startswith("user\n")
    with pytest.raises(Invalid, match="longer than the model's context of 120 tokens"):
        list(chat.say("x" * 400, SAMPLING))
    assert "".join(chat.say("Short?", SAMPLING)) == models[0].said


def rows(file: Path, count: int = 6) -> str:
    made = [
        {
            "split": split,
            "messages": [
                {"role": "user", "content": f"Shop {number}?"},
                {"role": "assistant", "content": f"At {number}."},
            ],
        }
        for number in range(count)
        for split in ("train", "test")
    ]
    file.write_text(json.dumps([*made, {"split": "test", "text": "No conversation."}]))
    return str(file)


def test_measuring(service: LabService, models: list[Recited], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = service.measure(
        "tiny", rows(tmp_path / "rows.json"), answers=2, on_progress=lambda *progress: seen.append(progress)
    )
    assert (found.model, found.rows) == ("tiny", 6)
    assert found.perplexity == pytest.approx(7)
    assert found.loss == pytest.approx(LOSS)
    encoded = models[0].tokenizer.encode_training(
        [{"role": "user", "content": "Shop 1?"}, {"role": "assistant", "content": "At 1."}], 100
    )
    assert found.tokens == 6 * encoded.supervised
    assert [(answer.question, answer.expected) for answer in found.answers] == [
        ("Shop 0?", "At 0."),
        ("Shop 3?", "At 3."),
    ]
    assert {answer.answer for answer in found.answers} == {models[0].said}
    assert models[0].asked[0] == ("user\nShop 0?\nassistant\n", SamplingOptions(64, temperature=0.0))
    assert seen == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize(("answers", "expected"), [(0, 0), (99, 6)])
def test_as_many_answers_as_asked_and_there(
    service: LabService, tmp_path: Path, answers: int, expected: int
) -> None:
    assert len(service.measure("tiny", rows(tmp_path / "rows.json"), answers=answers).answers) == expected


def test_what_cannot_be_measured(service: LabService, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="holds no conversation"):
        service.measure("tiny", rows(tmp_path / "rows.json"), split="validation")
    with pytest.raises(NotFound):
        service.measure("nobody", rows(tmp_path / "rows.json"))
    with pytest.raises(NotFound):
        service.chat("nobody")
    (tmp_path / "bad.json").write_text('[{"messages": []}, {"messages": 3}]')
    with pytest.raises(Invalid, match="has faults") as caught:
        service.measure("tiny", str(tmp_path / "bad.json"))
    assert len(caught.value.faults) >= 2
