"""What a classification job is refused for before it is queued."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.core.entities.datasets import Conversation, PreparedDataset
from app.core.entities.training_config import TrainingConfig
from app.core.errors import Invalid
from app.core.services.preflight import MAX_LABELS, check_job
from tests.unit.core.services.execution.conftest import FakeBases, FakeDatasets, FakeTokenizer, conversation


@dataclass
class Split(FakeDatasets):
    held_out: dict[str, Sequence[Conversation]] = field(default_factory=dict)

    def rows(self, prepared: PreparedDataset, split: str) -> Sequence[Conversation]:
        return self.train if split == "train" else self.held_out.get(split, [])


def labelled(row: int, label: str) -> Conversation:
    return Conversation(row, [], text=f"text {row}", label=label)


Check = Callable[..., None]
FaultsOf = Callable[..., list[tuple[str, str]]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def run(
        train: Sequence[Conversation], objective: str = "classification", **held_out: Sequence[Conversation]
    ) -> None:
        datasets = Split(tmp_path, train=train, held_out=held_out)
        config = TrainingConfig.model_validate({"base_model": "reader", "objective": objective})
        check_job(config, "digest", datasets, FakeBases(), trusted=False, go_on=lambda: True)

    return run


@pytest.fixture
def faults_of(check: Check) -> FaultsOf:
    def faults(*arguments: Any, **held_out: Any) -> list[tuple[str, str]]:
        with pytest.raises(Invalid) as caught:
            check(*arguments, **held_out)
        assert caught.value.code == "invalid_data"
        return [(fault.where, fault.code) for fault in caught.value.faults]

    return faults


def test_sound_rows(check: Check) -> None:
    check([labelled(1, "a"), labelled(2, "b")], validation=[labelled(3, "b")])


def test_labels_that_training_lacks_are_named_by_row(faults_of: FaultsOf) -> None:
    faults = faults_of(
        [labelled(1, "a"), labelled(2, "b")],
        validation=[labelled(3, "a"), labelled(4, "c")],
        test=[labelled(5, "d")],
    )
    assert faults == [("row 4: label", "unknown_label"), ("row 5: label", "unknown_label")]


def test_rows_without_a_label_are_named(faults_of: FaultsOf) -> None:
    faults = faults_of([labelled(1, "a"), conversation(2), labelled(3, "b"), conversation(4)])
    assert faults == [("row 2", "wrong_shape"), ("row 4", "wrong_shape")]


def test_one_label_is_too_few_and_a_column_of_ids_too_many(check: Check, faults_of: FaultsOf) -> None:
    assert faults_of([labelled(1, "a"), labelled(2, "a")]) == [("dataset", "too_few_labels")]
    many = [labelled(row, f"id {row}") for row in range(MAX_LABELS + 1)]
    check(many[:-1])
    assert faults_of(many) == [("dataset", "too_many_labels")]


def test_labelled_rows_are_no_conversations(faults_of: FaultsOf) -> None:
    assert faults_of([labelled(1, "a"), conversation(2)], "sft") == [("row 1", "wrong_shape")]


def test_an_encoder_learns_labels_and_nothing_else(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeTokenizer, "generates", False)
    rows = [labelled(1, "a"), labelled(2, "b")]
    check(rows)
    with pytest.raises(Invalid, match="reader") as caught:
        check(rows, "sft")
    assert caught.value.code == "not_generative"
