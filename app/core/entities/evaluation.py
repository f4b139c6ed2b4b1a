"""How well a model answers held-out questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """One held-out question. ``group`` is the row's language, or ``all``."""

    row: int
    group: str
    category: str
    question: str
    expected: str
    answer: str
    correct: bool


@dataclass(frozen=True, slots=True)
class Score:
    correct: int
    total: int

    @property
    def share(self) -> float:
        return self.correct / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """``model`` is a reference or a base model's name. An answer counts when it states the row's facts."""

    model: str
    dataset_digest: str
    split: str
    answers: Sequence[ScoredAnswer]

    def scores(self, by: str = "group") -> Mapping[str, Score]:
        """By ``group`` or ``category``, in alphabetical order."""
        keys = sorted({getattr(a, by) for a in self.answers})
        return {key: self._score([a for a in self.answers if getattr(a, by) == key]) for key in keys}

    @property
    def overall(self) -> Score:
        return self._score(self.answers)

    @staticmethod
    def _score(answers: Sequence[ScoredAnswer]) -> Score:
        return Score(sum(a.correct for a in answers), len(answers))


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """A training run as a report compares it. ``memory`` is bytes by part; curves are (optimizer step, loss)."""

    name: str
    metrics: Mapping[str, Any]
    memory: Mapping[str, int]
    losses: Sequence[tuple[int, float]]
    held_out: Sequence[tuple[int, float]]
