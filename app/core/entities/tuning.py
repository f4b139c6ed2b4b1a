"""Fine-tuning jobs as OpenAI's dialect asks for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.core.entities.jobs import DEFAULT_QUEUE


@dataclass(frozen=True, slots=True)
class TuningRequest:
    """``model`` is a base model's name, a redirect's, or a version's, to train on from.

    ``config`` has the keys of TrainingConfig that the request sets. ``learning_rate_multiplier`` is of the
    service's default rate. ``key`` is the same for the same request of the same caller; ``since`` is when it
    arrived, of a retried one when its first might have.
    """

    model: str
    training_file: str
    validation_file: str | None
    config: Mapping[str, Any]
    learning_rate_multiplier: float | None
    key: str
    since: datetime
    is_retry: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    queue: str = DEFAULT_QUEUE


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """That a run has left, and what was measured at its step, by the names of events."""

    step: int
    created_at: datetime
    figures: Mapping[str, float]
