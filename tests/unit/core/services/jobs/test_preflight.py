"""What a job is refused for before it is queued, and what is known of one that is not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from app.core.entities.datasets import Conversation, PreparedDataset, TokenizedRow
from app.core.entities.ledger import TokenCount
from app.core.entities.training_config import TrainingConfig
from app.core.errors import Invalid
from app.core.interfaces.stores import Stores
from app.core.services.jobs.preflight import MAX_LABELS, JobCheck, check_job
from app.implementations.data.token_cache import FileTokenCache
from app.utils.folders import seal
from tests.unit.core.services.jobs.execution.conftest import (
    FakeArtifacts,
    FakeBases,
    FakeDatasets,
    FakeTokenizer,
    conversation,
)


@dataclass
class Split(FakeDatasets):
    held_out: dict[str, Sequence[Conversation]] = field(default_factory=dict)

    def rows(self, prepared: PreparedDataset, split: str) -> Sequence[Conversation]:
        return self.train if split == "train" else self.held_out.get(split, [])


def stores_of(datasets: FakeDatasets) -> Stores:
    return Stores(cast("Any", None), FakeBases(), datasets, FakeArtifacts(), FileTokenCache())


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
        stores = stores_of(datasets)
        check_job(config, stores.datasets.prepare("rows.json", "digest", 42), stores, go_on=lambda: True)

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


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., JobCheck | None]:
    """The outcome of a check of rows in a cut that says what it holds."""
    cut = tmp_path / "cut"
    cut.mkdir()
    seal(cut, {})

    def run(
        train: Sequence[Conversation], go_on: Callable[[], bool] = lambda: True, **config: Any
    ) -> JobCheck | None:
        whole = TrainingConfig.model_validate({"base_model": "reader", **config})
        stores = stores_of(Split(cut, train=train))
        return check_job(whole, stores.datasets.prepare("rows.json", "digest", 42), stores, go_on)

    return run


def test_the_ledger_is_the_outcome(told: Callable[..., JobCheck | None]) -> None:
    found = told([conversation(1, "yes"), conversation(2, "surely")], train_samples=1)
    assert found is not None
    assert found.ledger.splits["train"].tokens == TokenCount(trained=3, masked=1, dropped=7)
    assert found.longest_row == 7


def test_a_second_check_asks_the_tokenizer_nothing(
    told: Callable[..., JobCheck | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [conversation(1, "yes"), conversation(2, "surely")]
    first = told(rows)
    monkeypatch.setattr(FakeTokenizer, "encode_training", None)
    assert told(rows, num_epochs=9) == first


def test_a_check_that_is_told_to_stop_leaves_nothing_half_done(told: Callable[..., JobCheck | None]) -> None:
    rows = [conversation(1, "yes"), conversation(2, "surely")]
    answers = iter([True, False])
    assert told(rows, go_on=lambda: next(answers)) is None
    found = told(rows)
    assert found is not None
    assert found.ledger.splits["train"].rows == 2


def test_rows_with_a_fault_are_not_kept(told: Callable[..., JobCheck | None]) -> None:
    for _ in range(2):
        with pytest.raises(Invalid) as caught:
            told([conversation(1, "yes"), conversation(2, "")])
        assert [fault.code for fault in caught.value.faults] == ["no_trained_token"]


def test_an_end_token_that_no_row_trains_fails_the_job(
    told: Callable[..., JobCheck | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row that does is enough: another may lose its end to max_length."""
    monkeypatch.setattr(FakeTokenizer, "stop_token_ids", (7,))
    rows = [conversation(1, "yes"), conversation(2, "surely")]
    with pytest.raises(Invalid, match="1 fault") as caught:
        told(rows)
    assert [(fault.where, fault.code) for fault in caught.value.faults] == [("dataset", "end_never_trained")]

    whole = FakeTokenizer.encode_training

    def with_end(self: FakeTokenizer, messages: Any, max_length: int | None) -> TokenizedRow:
        row = whole(self, messages, max_length)
        ends = messages[-1]["content"] == "yes"
        return replace(row, input_ids=[*row.input_ids, 7], labels=[*row.labels, 7]) if ends else row

    monkeypatch.setattr(FakeTokenizer, "encode_training", with_end)
    found = told(rows)
    assert found is not None
    assert found.ledger.splits["train"].ended_rows == 1


def test_thoughts_that_are_dropped_leave_an_answer_or_a_fault(told: Callable[..., JobCheck | None]) -> None:
    kept, dropped = (
        told([conversation(1, "<think>hm</think>yes")], reasoning=reasoning) for reasoning in ("keep", "drop")
    )
    assert kept is not None
    assert dropped is not None
    assert (kept.ledger.all.trained, dropped.ledger.all.trained) == (len("<think>hm</think>yes"), 3)
    with pytest.raises(Invalid) as caught:
        told([conversation(3, "<think>hm</think>")], reasoning="drop", max_length=99)  # not as it was kept
    assert [(fault.where, fault.code) for fault in caught.value.faults] == [("row 3", "only_a_thought")]
