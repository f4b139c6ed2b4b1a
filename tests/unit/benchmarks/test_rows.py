"""Rows to measure with."""

import hashlib
from pathlib import Path

from benchmarks.rows import ASSISTANT, LONGEST, SHORTEST, Row, make_equal_rows, make_rows, write_rows


def words(row: Row, *roles: str) -> int:
    return sum(len(message["content"].split()) for message in row["messages"] if message["role"] in roles)


def test_a_seed_gives_the_same_bytes_on_every_machine(tmp_path: Path) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    write_rows(first, make_rows(96, 42))
    write_rows(second, make_rows(96, 42))

    assert first.read_bytes() == second.read_bytes()
    # Readings in docs/performance.md are of these rows: change them, and read anew.
    assert (
        hashlib.sha256(first.read_bytes()).hexdigest()
        == "fbc416795b3033305d691680eea2cb80c5cfe8c19779f691f9e1fea266e24ef1"
    )


def test_another_seed_gives_other_rows() -> None:
    assert make_rows(8, 1) != make_rows(8, 2)


def test_lengths_are_mixed_most_of_them_short() -> None:
    lengths = sorted(words(row, "user", "assistant") for row in make_rows(96, 42))

    assert SHORTEST <= lengths[0] < 10
    assert LONGEST - 15 < lengths[-1] <= LONGEST
    assert lengths[48] < sum(lengths) / 96 < LONGEST / 3


def test_the_assistant_has_its_share_and_the_last_word() -> None:
    rows = make_rows(96, 42)

    share = sum(words(row, "assistant") for row in rows) / sum(words(row, "user", "assistant") for row in rows)
    assert abs(share - ASSISTANT) < 0.02
    for row in rows:
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(message["content"] for message in row["messages"])


def test_some_rows_have_several_turns() -> None:
    turns = [len(row["messages"]) // 2 for row in make_rows(96, 42)]
    assert {1, 2, 3, 4} == set(turns)
    assert turns.count(1) > 48


def test_equal_rows_have_the_words_asked_for() -> None:
    rows = make_equal_rows(3, asked=7, answered=50, seed=1)

    assert [words(row, "user") for row in rows] == [7, 7, 7]
    assert [words(row, "assistant") for row in rows] == [50, 50, 50]
    assert rows[0] != rows[1]
