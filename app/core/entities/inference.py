"""A generation, from the gateway to the engine and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Adapter:
    """What an engine attaches: a name unique for ever (the version's id) and the folder with its weights."""

    name: str
    folder: str
    pinned: bool = False  # an engine that can keeps it in memory


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """``max_tokens`` counts new tokens. Temperature 0 is greedy."""

    base_model: str
    prompt_ids: Sequence[int]
    max_tokens: int
    temperature: float = 0.0
    stop_token_ids: Sequence[int] = ()
    adapter: Adapter | None = None
    sharing: str | None = None  # requests of one name may have in common what was read of their prompts


@dataclass(frozen=True, slots=True)
class Generation:
    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """What ``predict`` answers. ``reasoning`` is what stood between the think tags, if the template has them."""

    text: str
    reasoning: str | None
    model: str  # the reference that answered, or the base model's name
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn."""

    temperature: float = 1.0  # below 1 sharper, 0 always the likeliest
    top_k: int = 0  # from so many of the likeliest; 0: from all
    top_p: float = 1.0  # from the fewest of those that hold this share of the probability
