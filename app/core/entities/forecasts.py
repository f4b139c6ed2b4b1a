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


@dataclass(frozen=True, slots=True)
class Shortage:
    """What a process wanted in all when memory ran out, and what it could have. Alike: the first is not known."""

    wanted_bytes: int
    available_bytes: int

    def in_words(self) -> str:
        had = in_gigabytes(self.available_bytes)
        if self.wanted_bytes <= self.available_bytes:
            return f"it had {had}, and there was no more"
        more = in_gigabytes(max(self.wanted_bytes - self.available_bytes, 1e6))  # "0 MB too few" tells nothing
        return f"it wanted {in_gigabytes(self.wanted_bytes)} and could have {had}: {more} too few"


def in_gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def in_minutes(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
