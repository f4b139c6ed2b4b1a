"""The steps together: named by the config, recorded, and the same each time."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.entities.data_pipeline import PipelineConfig
from app.core.entities.datasets import SPLITS, Conversation
from app.core.processors.pipeline import run_pipeline

ROOT = Path(__file__).parents[4]
WORDS = ("how", "long", "can", "i", "return", "an", "item", "that", "was", "bought", "last", "week", "in", "it")


def row(number: int, question: str, answer: str = "Yes.", **extra: object) -> Conversation:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Conversation(number, messages, extra=extra)


def config(*steps: str, **raw: object) -> PipelineConfig:
    return PipelineConfig.model_validate({"steps": steps, **raw})


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.lists(st.sampled_from([*WORDS, "<br>", "\0", "  "]), min_size=1).map(" ".join), max_size=25),
    st.integers(0, 2**32 - 1),
)
def test_a_pure_function(questions: list[str], seed: int) -> None:
    rows = [row(number, question) for number, question in enumerate(questions, start=1)]
    before = [replace(one, messages=[{**message} for message in one.messages]) for one in rows]
    chosen = config("clean", "split", "augment", seed=seed)
    result = run_pipeline(rows, chosen)
    assert result == run_pipeline(rows, chosen)
    assert rows == before
    assert [step.name for step in result.steps] == ["convert", "clean", "split", "augment"]
    for earlier, later in zip(result.steps, result.steps[1:], strict=False):
        assert earlier.rows_after == later.rows_before
        assert later.rows_after == later.rows_before - later.rows_dropped + later.rows_made
    assert sum(map(len, result.splits().values())) == len(result.rows)
    held_out = [one for one in result.rows if one.split != "train"]
    assert held_out == [
        one for one in run_pipeline(rows, config("clean", "split", seed=seed)).rows if one.split != "train"
    ]


def test_the_same_in_another_process_with_other_hashes() -> None:
    """str hashes and the order of sets differ from process to process."""
    code = (
        "import json; from app.core.processors.pipeline import run_pipeline;"
        "from app.core.entities.data_pipeline import PipelineConfig;"
        "from app.core.entities.datasets import Conversation;"
        f"words = {WORDS!r};"
        "rows = [Conversation(n, [{'role': 'user', 'content': ' '.join(words[n % 7:n % 7 + 6]) + f' {n % 9}'},"
        " {'role': 'assistant', 'content': str(n)}]) for n in range(1, 61)];"
        "raw = {'steps': ['clean', 'split', 'augment'], 'splitting': {'near_duplicates': 'keep_together'},"
        " 'augmentation': {'augmenters': ['rephrase', 'typos', 'system_prompt', 'later_turn']}};"
        "done = run_pipeline(rows, PipelineConfig.model_validate(raw));"
        "print(json.dumps([[r.row, r.split, r.messages, dict(r.extra)] for r in done.rows]))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert said[0] == said[1]
    assert len(json.loads(said[0])) > 60


def test_steps_are_done_as_named() -> None:
    rows = [row(1, "a\0"), row(2, "b")]
    assert run_pipeline(rows, config()).rows == rows
    assert [one.split for one in run_pipeline(rows, config("clean")).rows] == [None, None]
    assert [one.split for one in run_pipeline(rows, config("split")).rows] == ["train", "train"]


def test_changes_are_bounded_and_all_are_counted() -> None:
    rows = [row(number, f"question {number} ") for number in range(1, 51)]
    step = run_pipeline(rows, config("clean"), keep_changes=3).steps[1]
    assert (step.rows_changed, step.characters_removed, len(step.changes)) == (50, 50, 3)
    assert step.changes[0].row == 1
    assert (step.changes[0].before, step.changes[0].after) == ("question 1 ", "question 1")
    assert len(run_pipeline(rows, config("clean"), keep_changes=None).steps[1].changes) == 50


def near(number: int) -> list[Conversation]:
    """Pairs that differ in the last word, each pair unlike the others."""
    return [
        row(2 * n + last, f"In the matter of order number {n}{n}{n} of day {n} what happens to parcel {n} {word}")
        for n in range(1, number + 1)
        for last, word in enumerate(("now", "then"))
    ]


def test_near_duplicates_across_splits_are_reported_or_kept_together() -> None:
    rows = near(40)
    reported = run_pipeline(rows, config("split"))
    assert {warning.code for warning in reported.warnings} == {"near_duplicate_across_splits"}
    splits = {one.row: one.split for one in reported.rows}
    straddling = {n for n in splits if SPLITS.index(splits[n]) > SPLITS.index(splits[n ^ 1])}  # n ^ 1: its pair
    assert {warning.row for warning in reported.warnings} == straddling != set()
    together = run_pipeline(rows, config("split", splitting={"near_duplicates": "keep_together"}))
    assert together.warnings == []
    where = {one.row // 2: one.split for one in together.rows}
    assert all(one.split == where[one.row // 2] for one in together.rows)
    assert {*where.values()} == {*SPLITS}
    assert run_pipeline(rows, config("split", splitting={"near_duplicates": "ignore"})).warnings == []


def test_the_rows_own_splits_stand_and_are_looked_through() -> None:
    rows = [replace(one, split="test" if one.row % 2 else "train") for one in near(5)]
    result = run_pipeline(rows, config("split", splitting={"near_duplicates": "keep_together"}))
    assert result.rows == rows
    assert [warning.row for warning in result.warnings] == [3, 5, 7, 9, 11]


def test_the_sample_data_is_clean() -> None:
    raw = json.loads((ROOT / "data/raw/sample_data.json").read_text("utf-8"))
    rows = [Conversation(n, one["messages"], one["split"]) for n, one in enumerate(raw, start=1)]
    result = run_pipeline(rows, config("clean"))
    assert result.rows == rows
    assert result.steps[1].rows_changed == result.steps[1].rows_dropped == 0
