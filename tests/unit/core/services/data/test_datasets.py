"""The service over the real store and tokenizer; only the models' weights are left out."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from app.core.entities.datasets import SplitSummary
from app.core.errors import Invalid
from app.core.interfaces.components import BaseModelStore
from app.core.services.data.datasets import DatasetService
from app.implementations.data.formats import PreferenceFormat, PromptCompletionFormat, TextFormat
from app.implementations.data.store import FileDatasetStore
from app.implementations.data.tokenization import FolderChatTokenizer
from app.implementations.models.random_model import write_random_tokenizer


class Bases:
    """One base model."""

    def __init__(self, folder: Path) -> None:
        write_random_tokenizer("llama", folder)
        self._tokenizer = FolderChatTokenizer(folder)

    def tokenizer(self, name: str) -> FolderChatTokenizer:
        assert name == "tiny"
        return self._tokenizer


@pytest.fixture
def bases(tmp_path: Path) -> Bases:
    return Bases(tmp_path)


@pytest.fixture
def service(tmp_path: Path, bases: Bases) -> DatasetService:
    (tmp_path / "raw").mkdir()
    store = FileDatasetStore(tmp_path, [PromptCompletionFormat(), PreferenceFormat(), TextFormat()], 10_000)
    return DatasetService(datasets=store, bases=cast(BaseModelStore, bases))


def put(tmp_path: Path, rows: list[Any]) -> str:
    (tmp_path / "raw" / "x.json").write_text(json.dumps(rows))
    return "x.json"


def test_faults_are_all_reported_and_nothing_is_written(service: DatasetService, tmp_path: Path) -> None:
    path = put(tmp_path, [{"prompt": "a"}, 3])
    assert [fault.where for fault in service.check(path).faults] == ["row 1: completion", "row 2"]
    with pytest.raises(Invalid) as caught:
        service.prepare(path, seed=1)
    assert caught.value.faults == service.check(path).faults
    assert not (tmp_path / "processed").exists()


def test_a_summary_counts_tokens(service: DatasetService, bases: Bases, tmp_path: Path) -> None:
    answers = {"a": "x", "b": "y" * 10, "c": "z" * 100}
    rows = [{"prompt": key, "completion": text, "split": "train"} for key, text in answers.items()]
    rows.append({"prompt": "d", "completion": "w", "split": "test"})
    prepared = service.prepare(put(tmp_path, rows), seed=1)

    tokenizer = bases.tokenizer("tiny")
    prompt = len(tokenizer.encode_prompt([{"role": "user", "content": "a"}]))
    spoken = {key: len(tokenizer._tokenizer.encode(text).ids) + 1 for key, text in answers.items()}
    longest = prompt + spoken["b"]
    train, validation, test = service.summary(prepared, "tiny", max_length=longest)

    assert train.rows == 3
    assert train.tokens is not None
    assert train.tokens.supervised == spoken["a"] + 2 * spoken["b"]
    assert train.tokens.unsupervised == 3 * prompt
    assert train.tokens.truncated_rows == 1
    assert train.tokens.truncated == spoken["c"] - spoken["b"]
    assert train.tokens.row_lengths == {50: longest, 90: longest, 100: longest}
    assert validation == SplitSummary("validation", 0, None)
    assert test.tokens is not None
    assert set(test.tokens.row_lengths.values()) == {prompt + 2}


def test_a_summary_takes_rows_of_every_shape(service: DatasetService, bases: Bases, tmp_path: Path) -> None:
    """A pair counts with both answers, a plain text with all of its tokens but the first, which none predicts."""
    tokenizer = bases.tokenizer("tiny")
    prompt = len(tokenizer.encode_prompt([{"role": "user", "content": "a"}]))
    pair = {"prompt": "a", "chosen": "x", "rejected": "yz", "split": "train"}
    prepared = service.prepare(put(tmp_path, [pair, {"text": "once", "split": "validation"}]), seed=1)
    train, validation, _ = service.summary(prepared, "tiny", max_length=100)

    answers = len(tokenizer._tokenizer.encode("x").ids) + len(tokenizer._tokenizer.encode("yz").ids) + 2
    assert train.tokens is not None
    assert (train.tokens.supervised, train.tokens.unsupervised) == (answers, 2 * prompt)
    assert train.tokens.row_lengths[100] == prompt + len(tokenizer._tokenizer.encode("yz").ids) + 1
    assert validation.tokens is not None
    text = len(tokenizer.encode_text("once"))
    assert (validation.tokens.supervised, validation.tokens.unsupervised) == (text - 1, 1)


def test_without_a_base_model_rows_alone_are_counted(service: DatasetService, tmp_path: Path) -> None:
    prepared = service.prepare(put(tmp_path, [{"prompt": str(i), "completion": "x"} for i in range(10)]), seed=1)
    assert service.summary(prepared, None, 100) == [
        SplitSummary("train", 8, None),
        SplitSummary("validation", 1, None),
        SplitSummary("test", 1, None),
    ]
