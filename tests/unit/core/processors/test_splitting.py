"""Deterministic, complete, without leakage."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.entities.data_pipeline import SplittingOptions
from app.core.entities.datasets import SPLITS, Conversation, Split
from app.core.errors import Invalid
from app.core.processors.splitting import split


def rows(questions: Sequence[str], splits: Sequence[Split] | None = None) -> list[Conversation]:
    return [
        Conversation(
            number,
            [{"role": "user", "content": question}, {"role": "assistant", "content": "a"}],
            splits[number - 1] if splits else None,
        )
        for number, question in enumerate(questions, start=1)
    ]


@settings(deadline=None)
@given(questions=st.lists(st.sampled_from("abcdefghijkl"), max_size=60), seed=st.integers(0, 2**32 - 1))
def test_every_row_once_and_no_question_twice(questions: list[str], seed: int) -> None:
    conversations = rows([q.upper() if place % 2 else f" {q} " for place, q in enumerate(questions)])
    parts = split(conversations, seed)
    assert sorted(row.row for name in SPLITS for row in parts[name]) == [row.row for row in conversations]
    asked = [{row.messages[0]["content"].strip().lower() for row in parts[name]} for name in SPLITS]
    assert not asked[0] & asked[1]
    assert not asked[0] & asked[2]
    assert not asked[1] & asked[2]
    assert parts["train"] or not conversations
    assert parts == split(conversations, seed)


def test_eighty_ten_ten() -> None:
    parts = split(rows([f"question {i}" for i in range(100)]), 42)
    assert [len(parts[name]) for name in SPLITS] == [80, 10, 10]
    assert parts["train"] != split(rows([f"question {i}" for i in range(100)]), 43)["train"]


def test_too_few_questions_all_train() -> None:
    parts = split(rows(["a", "b", "b"]), 0)
    assert [len(parts[name]) for name in SPLITS] == [3, 0, 0]


def test_three_questions_are_enough() -> None:
    assert [len(part) for part in split(rows(["a", "b", "c"]), 0).values()] == [1, 1, 1]


def test_equal_texts_stay_together() -> None:
    texts = [Conversation(place, [], text=f"text {place // 2}") for place in range(40)]
    parts = split(texts, 0)
    kept = [{row.text for row in parts[name]} for name in SPLITS]
    assert [len(parts[name]) for name in SPLITS] == [32, 4, 4]
    assert not kept[0] & (kept[1] | kept[2])


def test_the_rows_own_split_is_honoured() -> None:
    parts = split(rows("abc", ["test", "train", "test"]), 0)
    assert {name: [row.row for row in parts[name]] for name in SPLITS} == {
        "train": [2],
        "validation": [],
        "test": [1, 3],
    }


# --- options ---

BY_CUSTOMER = SplittingOptions(method="grouped", group_by="customer")
STRATIFIED = SplittingOptions(method="stratified")


def test_the_default_split_is_what_it_was() -> None:
    """Cuts that exist are found by seed and digest: another deal would be another dataset under their name."""
    parts = split(rows([f"question {number}" for number in range(20)]), 42)
    assert [row.row for row in parts["validation"]] == [6, 20]
    assert [row.row for row in parts["test"]] == [5, 15]


def grouped(customers: Sequence[object]) -> list[Conversation]:
    return [
        Conversation(number, [], text=f"text {number}", extra={} if who is None else {"customer": who})
        for number, who in enumerate(customers, start=1)
    ]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "c", "d", 1, "1", 2.5, None, True]), min_size=1, max_size=80),
    st.integers(0, 2**32 - 1),
)
def test_a_group_never_straddles(customers: list[object], seed: int) -> None:
    conversations = grouped(["z", *customers])
    parts = split(conversations, seed, BY_CUSTOMER)
    assert sorted(row.row for name in SPLITS for row in parts[name]) == [row.row for row in conversations]
    where: dict[str, set[str]] = {}
    for name in SPLITS:
        for row in parts[name]:
            if "customer" in row.extra:
                where.setdefault(repr(row.extra["customer"]), set()).add(name)
    assert all(len(splits) == 1 for splits in where.values())


def test_a_column_that_no_row_has_is_refused_with_those_there_are() -> None:
    conversations = [Conversation(1, [], text="a", extra={"client": 1, "day": 2})]
    with pytest.raises(Invalid, match="the columns are client, day"):
        split(conversations, 0, BY_CUSTOMER)


def labelled(counts: dict[str, int]) -> list[Conversation]:
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [Conversation(n, [], text=f"text {n}", label=label) for n, label in enumerate(labels, start=1)]


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 60), min_size=1),
    st.integers(0, 2**32 - 1),
)
def test_stratified_labels_have_their_shares(counts: dict[str, int], seed: int) -> None:
    conversations = labelled(counts)
    parts = split(conversations, seed, STRATIFIED)
    assert sorted(row.row for name in SPLITS for row in parts[name]) == [row.row for row in conversations]
    for label, count in counts.items():
        found = {name: sum(row.label == label for row in parts[name]) for name in SPLITS}
        assert found["train"] >= 1
        if len(conversations) >= 3:
            assert abs(found["validation"] - count / 10) <= 1.5
            assert abs(found["test"] - count / 10) <= 1.5


def test_labels_of_one_row_take_nothing_from_the_others() -> None:
    counts = {**{f"once {number}": 1 for number in range(100)}, "z": 40}
    parts = split(labelled(counts), 1, STRATIFIED)
    assert [sum(row.label == "z" for row in parts[name]) for name in SPLITS] == [32, 4, 4]


def test_stratified_by_the_column_label_of_conversations() -> None:
    conversations = [
        Conversation(c.row, c.messages, extra={"label": c.row % 2}) for c in rows([f"q {n}" for n in range(100)])
    ]
    parts = split(conversations, 5, STRATIFIED)
    assert Counter(row.extra["label"] for row in parts["test"]) == {0: 5, 1: 5}


def test_shares_are_the_options() -> None:
    options = SplittingOptions(validation=0.25, test=0)
    for method in (options, options.model_copy(update={"method": "stratified"})):
        parts = split(rows([f"question {i}" for i in range(100)]), 1, method)
        assert [len(parts[name]) for name in SPLITS] == [75, 25, 0]


def test_what_belongs_together_stays_together() -> None:
    conversations = rows([f"question {i}" for i in range(60)])
    parts = split(conversations, 3, together=[number // 3 for number in range(60)])
    for name in SPLITS:
        assert all(count == 3 for count in Counter((row.row - 1) // 3 for row in parts[name]).values())
