"""The steps from converted rows to those that train, in the order of the config: rows to rows, and a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from app.core.entities.data_pipeline import DataWarning, PipelineConfig, PipelineResult, StepRecord
from app.core.entities.datasets import SPLITS, Conversation, Split
from app.core.interfaces.components import RowProgress
from app.implementations.data.augmentation import augment
from app.implementations.data.cleaning import clean_rows
from app.implementations.data.near_duplicates import find_near_duplicates
from app.implementations.data.recording import Recorder
from app.implementations.data.splitting import first_question, split
from app.implementations.data.watching import unwatched

KEPT_CHANGES = 1000

Rows = Sequence[Conversation]


def run_pipeline(
    rows: Rows,
    config: PipelineConfig,
    *,
    keep_changes: int | None = KEPT_CHANGES,
    on_progress: RowProgress = unwatched,
) -> PipelineResult:
    """The same result for the same rows and config, on any machine.

    Of each step the first ``keep_changes`` changes are kept (None: all of them) and all are counted. The reader
    has converted the rows, without loss, before they come here: the first record says how many.
    """
    records = [StepRecord("convert", len(rows), len(rows))]
    for name in config.steps:
        recorder = Recorder(name, keep_changes)
        before = len(rows)
        rows = _STEPS[name](rows, config, recorder, on_progress)
        records.append(recorder.record(before, len(rows)))
    return PipelineResult(rows, records)


def _clean(rows: Rows, config: PipelineConfig, record: Recorder, _: RowProgress) -> Rows:
    return clean_rows(rows, config.cleaning, record)


def _split(rows: Rows, config: PipelineConfig, record: Recorder, on_progress: RowProgress) -> Rows:
    """Every row with its split, in the order of the file."""
    options = config.splitting
    clusters: Sequence[int] = ()
    if options.near_duplicates != "ignore":
        asked = [first_question(row) for row in rows]
        clusters = find_near_duplicates(asked, config.near_duplicates, config.seed, on_progress).clusters
    together = clusters if options.near_duplicates == "keep_together" else None
    parts = split(rows, config.seed, options, together)
    by_number = {row.row: name for name in SPLITS for row in parts[name]}
    done = [row if row.split else replace(row, split=by_number[row.row]) for row in rows]
    record.warnings += _straddling(done, clusters)
    return done


def _straddling(rows: Rows, clusters: Sequence[int]) -> list[DataWarning]:
    """A warning for each row that asks nearly what a row of an earlier split asks, train being the first."""
    first: dict[tuple[int, Split | None], int] = {}
    for row, cluster in zip(rows, clusters, strict=False):
        first.setdefault((cluster, row.split), row.row)
    found = []
    for row, cluster in zip(rows, clusters, strict=False):
        earlier = SPLITS[: SPLITS.index(row.split or "train")]
        other = next((name for name in earlier if (cluster, name) in first), None)
        if other is not None:
            message = (
                f"of {row.split} asks nearly what row {first[cluster, other]} of {other} asks, so its score says "
                "less: set splitting.near_duplicates: keep_together, or leave one out"
            )
            found.append(DataWarning(row.row, "near_duplicate_across_splits", message))
    return found


def _augment(rows: Rows, config: PipelineConfig, record: Recorder, _: RowProgress) -> Rows:
    return augment(rows, config.augmentation, config.seed, record)


_STEPS: Mapping[str, Callable[[Rows, PipelineConfig, Recorder, RowProgress], Rows]] = {
    "clean": _clean,
    "split": _split,
    "augment": _augment,
}
