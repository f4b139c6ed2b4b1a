"""What a run is expected to take."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Forecast:
    """``seconds`` is what ``train_runtime`` will be: steps, evaluations and checkpoints, not the model's loading.

    Memory is of one process, on its device. ``early_stopping_patience`` may end a run before its time.
    """

    peak_memory_bytes: int
    seconds: float
    steps: int
    input_tokens: int
    trained_tokens: int
    disk_bytes: int  # of the run folder at its fullest, and of the published version
    resting_bytes: int  # between two passes: weights, masters, the optimizer's state
    token_bytes: float  # of what a pass keeps for each of its tokens
    largest_batch_tokens: int  # of the micro-batch with the most
    device: str = "cpu"
    free_bytes: int | None = None  # of the GPU, before the model was there

    def in_words(self) -> str:
        return f"peak memory {self.peak_memory_bytes / 1e9:.2f} GB, {in_minutes(self.seconds)}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A forecast beside what this host has. ``suggestion``: keys of the config that would make it fit."""

    forecast: Forecast
    available_bytes: int
    fits: bool
    suggestion: Mapping[str, Any] | None = None


def in_minutes(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
