"""The labelled sample: balanced, without near-copies across splits, and not told apart by a word."""

import json
import re
from collections import Counter
from difflib import SequenceMatcher
from itertools import product
from pathlib import Path
from typing import Any

ROWS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "data" / "raw" / "sample_tickets.json").read_text("utf-8")
)
LABELS = ("account", "complaint", "invoice", "product", "returns", "shipping")


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def test_rows_have_the_format() -> None:
    for row in ROWS:
        assert list(row) == ["id", "split", "text", "label"], row["id"]
        assert row["text"] == " ".join(row["text"].split()), row["id"]
        assert 5 <= len(words(row["text"])) <= 25, row["id"]
    assert len({row["id"] for row in ROWS}) == len(ROWS)


def test_every_label_has_as_many_rows_in_every_split() -> None:
    counts = Counter((row["label"], row["split"]) for row in ROWS)
    expected = {"train": 28, "validation": 6, "test": 6}
    assert counts == {(label, split): count for label in LABELS for split, count in expected.items()}


def test_no_held_out_text_is_like_one_trained_on() -> None:
    trained = [words(row["text"]) for row in ROWS if row["split"] == "train"]
    held_out = [words(row["text"]) for row in ROWS if row["split"] != "train"]
    alike = [
        (" ".join(one), " ".join(other))
        for one, other in product(trained, held_out)
        if len(set(one) & set(other)) / len(set(one) | set(other)) > 0.45
        or SequenceMatcher(None, one, other).ratio() > 0.5
    ]
    assert alike == []


def test_no_word_tells_a_label() -> None:
    """Guessing a label from its telling words alone is right less than half the time."""
    tell = {
        "shipping": r"deliver|parcel|ship|courier|driver|dispatch|track|box",
        "returns": r"return|refund|back|exchange",
        "invoice": r"invoice|bill|pay|paid",
        "account": r"account|login|password|mail|profile|sign",
        "complaint": r"complain|apolog|rude|disappoint",
    }
    guesses = [
        next((label for label, found in tell.items() if re.search(found, row["text"].casefold())), "product")
        for row in ROWS
    ]
    assert sum(guess == row["label"] for guess, row in zip(guesses, ROWS, strict=True)) < len(ROWS) / 2
