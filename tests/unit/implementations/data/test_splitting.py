"""Deterministic, complete, without leakage."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.entities.datasets import SPLITS, Conversation, Split
from app.implementations.data.splitting import split


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
