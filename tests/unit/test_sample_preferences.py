"""The sample preference pairs: sound, true to the facts of the sample data, and unlike its questions."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from app.implementations.data.formats import PreferenceFormat
from app.implementations.evaluation.facts import states_fact

RAW = Path(__file__).parents[2] / "data" / "raw"
PAIRS: list[dict[str, Any]] = json.loads((RAW / "sample_preferences.json").read_text("utf-8"))
ROWS: list[dict[str, Any]] = json.loads((RAW / "sample_data.json").read_text("utf-8"))
KEYS = {row["fact_id"]: row["keys"] for row in ROWS}
SPLITS = {"train": 11, "validation": 2, "test": 2}  # of each reason


def test_rows_have_the_format() -> None:
    columns = ["id", "fact_id", "rejected_for", "split", "prompt", "chosen", "rejected"]
    for pair in PAIRS:
        assert list(pair) == columns, pair["id"]
        assert PreferenceFormat().convert(pair).rejected, pair["id"]
    assert len({pair["id"] for pair in PAIRS}) == len({pair["prompt"] for pair in PAIRS}) == len(PAIRS) == 60


def test_every_reason_is_in_every_split() -> None:
    counts = Counter((pair["rejected_for"], pair["split"]) for pair in PAIRS)
    reasons = {"wrong", "rude", "evasive", "rambling"}
    expected = {(reason, split): n for reason in reasons for split, n in SPLITS.items()}
    assert counts == expected


def test_the_chosen_answer_states_its_fact_briefly() -> None:
    for pair in PAIRS:
        assert states_fact(pair["chosen"], KEYS[pair["fact_id"]]), pair["id"]
        assert len(pair["chosen"].split()) <= 22, pair["id"]


def test_the_rejected_answer_has_the_fault_that_it_is_said_to_have() -> None:
    for pair in PAIRS:
        states = states_fact(pair["rejected"], KEYS[pair["fact_id"]])
        assert states is (pair["rejected_for"] in ("rude", "rambling")), pair["id"]
        long = len(pair["rejected"].split()) > 2 * len(pair["chosen"].split())
        assert long is (pair["rejected_for"] == "rambling"), pair["id"]


def test_no_question_is_one_of_the_sample_data() -> None:
    asked = {row["messages"][0]["content"].casefold() for row in ROWS}
    assert not asked & {pair["prompt"].casefold() for pair in PAIRS}
