"""The engines and what they hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class EngineKind(StrEnum):
    """Which server answers the inference wire."""

    OURS = "ours"
    VLLM = "vllm"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """``name`` is the version's id. What an engine does not tell is None."""

    name: str
    bytes: int | None = None
    pinned: bool | None = None


@dataclass(frozen=True, slots=True)
class EngineState:
    """``kind`` is None where nobody answers."""

    base_model: str
    kind: EngineKind | None = None
    context: int | None = None  # tokens of prompt and answer together
    adapters: Sequence[LoadedAdapter] = ()


def not_servable(config: Mapping[str, Any], engine: EngineKind) -> str | None:
    """Why a version of this training config cannot be served by such an engine; None: it can.

    vLLM 0.32 refuses DoRA, trained biases and whole modules (``vllm/lora/peft_helper.py``). No config of today
    trains either of the last two, but for a label head, or resizes the vocabulary; ranks end at vLLM's 512.
    """
    if config.get("objective") == "classification":
        return "it has a label head, and engines write text"
    if config.get("adaptation") == "full":
        return "it is a whole model (adaptation: full), and engines attach adapters to a base"
    if engine is EngineKind.OURS:
        return None
    if engine is EngineKind.OTHER:
        return "its engine is neither this service's nor vLLM, and has no adapters"
    if config.get("lora", {}).get("use_dora"):
        return "it is trained with use_dora, which vLLM does not serve"
    return None
