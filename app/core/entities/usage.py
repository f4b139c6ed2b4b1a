"""What requests to models used."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Usage:
    """One request that a model was found for, answered or not."""

    project_id: str
    caller: str  # the user's id
    model: str  # the reference that answered, or the base model's name
    version_id: str | None  # None: a base model
    base_model: str
    prompt_tokens: int
    completion_tokens: int
    first_token_seconds: float | None  # None: there was none, or the answer came in one piece
    seconds: float
    finish_reason: str | None
    error: str | None  # its code, where there was no answer, or no whole one
    created_at: datetime

    @property
    def day(self) -> str:
        """In UTC, as 2026-11-24."""
        return self.created_at.date().isoformat()


@dataclass(frozen=True, slots=True)
class UsageSum:
    """Of one model or of one day. ``key`` says which."""

    key: str
    requests: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    mean_seconds: float
    mean_first_token_seconds: float | None


@dataclass(frozen=True, slots=True)
class UsagePage:
    """``next`` is the ``after`` of the page that follows, None on the last."""

    sums: Sequence[UsageSum]
    next: str | None
