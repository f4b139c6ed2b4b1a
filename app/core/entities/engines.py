"""The engines and what they hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from app.core.factories import ADAPTATIONS, OBJECTIVES


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


@dataclass(frozen=True, slots=True)
class EngineName:
    """A base model's engine; or the own one of a version that no base's engine attaches."""

    base_model: str
    version: str | None = None  # that version's artifacts

    def __str__(self) -> str:
        """What the engine itself calls its model."""
        return self.version or self.base_model


def needs_own_engine(config: Mapping[str, Any]) -> bool:
    """Tell whether a version of this training config is a whole model or has a label head."""
    return is_whole_model(config) or has_label_head(config)


def is_whole_model(config: Mapping[str, Any]) -> bool:
    """Tell whether a version of this config is a model folder of its own, and no adapter over its base."""
    return bool(ADAPTATIONS.declared(config.get("adaptation"), "publishes") == "model")


def has_label_head(config: Mapping[str, Any]) -> bool:
    """Tell whether a version of this training config tells labels and writes no text."""
    return bool(OBJECTIVES.declared(config.get("objective"), "label_head"))


def not_servable(config: Mapping[str, Any], engine: EngineKind) -> str | None:
    """Why a version of this training config cannot be served by such an engine; None: it can.

    What needs an engine of its own gets this service's. vLLM 0.32 refuses DoRA, trained biases and whole modules
    (``vllm/lora/peft_helper.py``). No config of today trains either of the last two, but for a label head, or
    resizes the vocabulary; ranks end at vLLM's 512.
    """
    if engine is EngineKind.OURS:
        return None
    if has_label_head(config):
        return "it has a label head, which this service's own engine serves"
    if is_whole_model(config):
        return f"it is a whole model (adaptation: {config['adaptation']}), which this service's own engine serves"
    if engine is EngineKind.OTHER:
        return "its engine is neither this service's nor vLLM, and has no adapters"
    if config.get("lora", {}).get("use_dora"):
        return "it is trained with use_dora, which vLLM does not serve"
    return None


@dataclass(frozen=True, slots=True)
class AdapterReport:
    reference: str
    bytes: int | None
    pinned: bool | None


@dataclass(frozen=True, slots=True)
class EngineReport:
    """``adapters`` are the project's; of those of other projects, how many there are and what they take."""

    base_model: str
    resident: bool
    kind: EngineKind | None
    context: int | None
    adapters: Sequence[AdapterReport]
    others: int
    other_bytes: int
