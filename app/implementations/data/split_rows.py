"""The pipeline's step ``split``: near-duplicates are found by a library, and kept together or told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from app.core.entities.data_pipeline import DataWarning
from app.core.entities.datasets import SPLITS, Conversation, Split
from app.core.entities.recording import Recorder
from app.core.interfaces.components import DataProcessor, RowProgress
from app.core.processors.splitting import first_question, split
from app.implementations.data.near_duplicates import find_near_duplicates


class SplitRows(DataProcessor):
    """Gives every row its split, in the order of the file."""

    def process(
        self, rows: Sequence[Conversation], record: Recorder, on_progress: RowProgress
    ) -> Sequence[Conversation]:
        options = self.config.splitting
        clusters: Sequence[int] = ()
        if options.near_duplicates != "ignore":
            asked = [first_question(row) for row in rows]
            near = self.config.near_duplicates
            clusters = find_near_duplicates(asked, near, self.config.seed, on_progress).clusters
        together = clusters if options.near_duplicates == "keep_together" else None
        parts = split(rows, self.config.seed, options, together)
        by_number = {row.row: name for name in SPLITS for row in parts[name]}
        done = [row if row.split else replace(row, split=by_number[row.row]) for row in rows]
        record.warnings += _straddling(done, clusters)
        return done


def _straddling(rows: Sequence[Conversation], clusters: Sequence[int]) -> list[DataWarning]:
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
