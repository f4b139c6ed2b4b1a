"""The sample data: complete, consistent, free of near-copies, each answer told apart from all others."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from difflib import SequenceMatcher
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

import pytest

from app.implementations.evaluation.facts import states_fact

SAMPLE = Path(__file__).parents[2] / "data" / "raw" / "sample_data.json"

Row = dict[str, Any]

# How alike two phrasings of one fact may be, 0 to 1.
# WORDS (English): the content words both have, of those either has.
# CHARACTERS (English): difflib's ratio of the whole sentences.
# TRIGRAMS (Chinese): the runs of three characters both have, of those either has.
# Customers name the topic, so a word or two recurs. One template with a synonym swapped in shares most of its
# words and scores above 0.75 in CHARACTERS. A test phrasing keeps a greater distance from those trained on.
BOUNDS = {"WORDS": 0.5, "CHARACTERS": 0.7, "TRIGRAMS": 0.22}
HELD_OUT_BOUNDS = {"WORDS": 0.4, "CHARACTERS": 0.65, "TRIGRAMS": 0.15}

# No sentence frame is stamped over the facts: how many facts may open a phrasing with the same four words.
MAX_FACTS_PER_OPENING = 3

COMMON_WORDS = """
    a about after all am an and any are as at be been before by can could did do does for from get got had has
    have he her how i if in into is it its may me mine much must my no not of off on once one only or our out
    please shall she should so some than that the their them then there they this to too until up us was we
    were what when where which while who whom why will with would you your yours
"""
STOPWORDS = frozenset(COMMON_WORDS.split())


def load() -> list[Row]:
    rows: list[Row] = json.loads(SAMPLE.read_text(encoding="utf-8"))
    return rows


ROWS = load()
FACTS: dict[str, list[Row]] = defaultdict(list)
for _row in ROWS:
    FACTS[_row["fact_id"]].append(_row)


def question(row: Row) -> str:
    content: str = row["messages"][0]["content"]
    return content


def answer(row: Row) -> str:
    content: str = row["messages"][1]["content"]
    return content


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).casefold())


def content_words(text: str) -> frozenset[str]:
    return frozenset(words(text)) - STOPWORDS


def trigrams(text: str) -> frozenset[str]:
    joined = "".join(words(text))
    return frozenset(joined[i : i + 3] for i in range(len(joined) - 2))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    return len(left & right) / len(left | right) if left | right else 0.0


def likeness(left: Row, right: Row) -> dict[str, float]:
    """The measures of two phrasings, by the name of the bound each is held to."""
    one, two = question(left), question(right)
    if left["language"] == "zh":
        return {"TRIGRAMS": jaccard(trigrams(one), trigrams(two))}
    return {
        "WORDS": jaccard(content_words(one), content_words(two)),
        "CHARACTERS": SequenceMatcher(None, " ".join(words(one)), " ".join(words(two))).ratio(),
    }


def too_alike(rows: list[Row], bounds: dict[str, float], held_out: bool) -> list[str]:
    """One line for each pair that breaks a bound; with ``held_out``, only pairs of a test and a train row."""
    found = []
    for left, right in combinations(rows, 2):
        if held_out and {left["split"], right["split"]} != {"train", "test"}:
            continue
        for name, value in likeness(left, right).items():
            if value > bounds[name]:
                found.append(
                    f"{left['id']} / {right['id']}: {name} {value:.2f} > {bounds[name]}: "
                    f"{question(left)!r} / {question(right)!r}"
                )
    return found


def test_rows_have_the_format() -> None:
    for row in ROWS:
        assert list(row) == ["id", "fact_id", "category", "language", "split", "keys", "messages"], row["id"]
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"], row["id"]
        assert all(list(message) == ["role", "content"] for message in row["messages"]), row["id"]
        assert row["language"] in {"en", "zh"}, row["id"]
        assert row["fact_id"].startswith("zh-") is (row["language"] == "zh"), row["id"]
        assert row["keys"], row["id"]
        assert all(options and all(options) for options in row["keys"]), row["id"]
        for text in (question(row), answer(row)):
            assert text == " ".join(text.split()), row["id"]


def test_file_has_one_row_per_line_and_readable_text() -> None:
    lines = SAMPLE.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "["
    assert lines[-1] == "]"
    assert [json.loads(line.rstrip(",")) for line in lines[1:-1]] == ROWS
    assert not any("\\u" in line for line in lines)


def test_there_are_enough_facts_and_phrasings() -> None:
    languages = Counter(rows[0]["language"] for rows in FACTS.values())
    assert len(FACTS) >= 60
    assert languages["zh"] >= 10
    short = {fact: len(rows) for fact, rows in FACTS.items() if len(rows) < 8}
    assert not short, f"facts with fewer than 8 phrasings: {short}"


def test_every_fact_is_in_every_split() -> None:
    for fact, rows in FACTS.items():
        splits = Counter(row["split"] for row in rows)
        assert set(splits) == {"train", "validation", "test"}, fact
        assert splits["train"] > splits["validation"] + splits["test"], fact


def test_ids_are_unique_and_name_their_fact() -> None:
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    for fact, rows in FACTS.items():
        assert [row["id"] for row in rows] == [f"{fact}-{n:02d}" for n in range(1, len(rows) + 1)]
    runs = [fact for fact, _ in groupby(row["fact_id"] for row in ROWS)]
    assert len(runs) == len(FACTS), "rows are not grouped by fact"


def test_no_phrasing_occurs_twice() -> None:
    places = defaultdict(list)
    for row in ROWS:
        places[" ".join(words(question(row)))].append(row["id"])
    twice = [ids for ids in places.values() if len(ids) > 1]
    assert not twice, f"the same phrasing: {twice}"


@pytest.mark.parametrize("field", ["category", "language", "keys"])
def test_rows_of_a_fact_agree(field: str) -> None:
    for fact, rows in FACTS.items():
        assert all(row[field] == rows[0][field] for row in rows), fact


def test_rows_of_a_fact_have_one_answer_and_no_other_fact_has_it() -> None:
    answers = {fact: {answer(row) for row in rows} for fact, rows in FACTS.items()}
    assert all(len(texts) == 1 for texts in answers.values()), answers
    assert len(set.union(*answers.values())) == len(FACTS)


def test_every_answer_states_its_own_fact_and_no_other() -> None:
    wrong = []
    for fact, rows in FACTS.items():
        for other, others in FACTS.items():
            if states_fact(answer(others[0]), rows[0]["keys"]) is not (fact == other):
                wrong.append(f"keys of {fact} against the answer of {other}: {answer(others[0])!r}")
    assert not wrong, "\n".join(wrong)


def test_every_alternative_of_a_fact_can_be_found() -> None:
    for fact, rows in FACTS.items():
        for option in (option for options in rows[0]["keys"] for option in options):
            assert states_fact(f"x {option} x", [[option]]), f"{fact}: {option!r}"


def test_questions_and_answers_have_the_length_of_a_support_desk() -> None:
    for row in ROWS:
        if row["language"] == "zh":
            assert 5 <= len("".join(words(question(row)))) <= 30, row["id"]
            assert 12 <= len(answer(row)) <= 30, row["id"]
        else:
            assert 5 <= len(question(row).split()) <= 18, row["id"]
            assert 8 <= len(answer(row).split()) <= 20, row["id"]


@pytest.mark.parametrize(
    ("language", "one", "two", "alike"),
    [
        ("en", "How long is the return period for goods?", "How long is the return window for goods?", True),
        ("en", "Can I pause my Seed Box?", "Can I cancel my Seed Box?", True),
        ("en", "Can I pause my Seed Box?", "I am away all winter, do the boxes stop?", False),
        ("zh", "退货期限是几天？", "退货期限有几天？", True),
        ("zh", "退货期限是几天？", "铲子没用过，还能退吗？", False),
    ],
)
def test_bounds_catch_a_swapped_word(language: str, one: str, two: str, alike: bool) -> None:
    rows = [
        {"id": text, "language": language, "split": split, "messages": [{"content": text}]}
        for text, split in ((one, "train"), (two, "test"))
    ]
    for bounds, held_out in ((BOUNDS, False), (HELD_OUT_BOUNDS, True)):
        assert bool(too_alike(rows, bounds, held_out)) is alike


def test_phrasings_of_a_fact_differ() -> None:
    found = [line for rows in FACTS.values() for line in too_alike(rows, BOUNDS, held_out=False)]
    assert not found, "\n".join([f"{len(found)} pairs are too alike", *found])


def test_held_out_phrasings_differ_from_those_trained_on() -> None:
    found = [line for rows in FACTS.values() for line in too_alike(rows, HELD_OUT_BOUNDS, held_out=True)]
    assert not found, "\n".join([f"{len(found)} pairs are too alike", *found])


def test_no_sentence_frame_is_stamped_over_the_facts() -> None:
    openings = defaultdict(set)
    for row in ROWS:
        openings[tuple(words(question(row))[:4])].add(row["fact_id"])
    frames = {" ".join(k): sorted(v) for k, v in openings.items() if len(v) > MAX_FACTS_PER_OPENING}
    assert not frames, f"openings shared by too many facts: {frames}"
