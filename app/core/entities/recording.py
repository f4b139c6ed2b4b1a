"""What a step does to rows, written down as it does it."""

from __future__ import annotations

from collections import Counter

from app.core.entities.data_pipeline import Change, DataWarning, StepRecord
from app.core.entities.datasets import Conversation

MAX_WARNINGS = 1000


class Recorder:
    """Counts everything, and keeps the first ``keep`` changes (None: all of them)."""

    def __init__(self, name: str, keep: int | None) -> None:
        self.name = name
        self.warnings: list[DataWarning] = []
        self._keep = keep
        self._changes: list[Change] = []
        self._reasons: Counter[str] = Counter()
        self._changed: set[int] = set()
        self._dropped = 0
        self._made = 0
        self._characters = 0

    def change(self, row: Conversation, where: str, before: str, after: str, why: str) -> None:
        self._changed.add(row.row)
        self._characters += len(before) - len(after)
        self._add(Change(row.row, where, before, after, why))

    def drop(self, row: Conversation, why: str) -> None:
        self._dropped += 1
        self._changed.discard(row.row)
        self._add(Change(row.row, "row", shown(row), None, why))

    def make(self, row: Conversation, why: str) -> None:
        self._made += 1
        self._add(Change(row.row, "row", None, shown(row), why))

    def _add(self, change: Change) -> None:
        self._reasons[change.why] += 1
        if self._keep is None or len(self._changes) < self._keep:
            self._changes.append(change)

    def record(self, rows_before: int, rows_after: int) -> StepRecord:
        return StepRecord(
            name=self.name,
            rows_before=rows_before,
            rows_after=rows_after,
            rows_changed=len(self._changed),
            rows_dropped=self._dropped,
            rows_made=self._made,
            characters_removed=self._characters,
            reasons=dict(sorted(self._reasons.items())),
            changes=tuple(self._changes),
            warnings=tuple(self.warnings[:MAX_WARNINGS]),
        )


def shown(row: Conversation) -> str:
    """A row in one text, for people to read."""
    said = [f"{message['role']}: {message['content']}" for message in row.messages]
    if row.rejected is not None:
        said.append(f"rejected: {row.rejected['content']}")
    if row.text is not None:
        said.append(row.text)
    if row.label is not None:
        said.append(f"label: {row.label}")
    return "\n".join(said)
