"""Base models, published versions and references to them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from app.core.errors import Invalid


@dataclass(frozen=True, slots=True)
class BaseModelSpec:
    """An entry of config/base_models.yaml. ``location``: a hub id, a package, a folder, a preset, or a YAML."""

    name: str
    source: Literal["hub", "package", "folder", "random", "scratch"]
    location: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """Immutable: adapter, template, tokenizer, config, metrics, lineage. ``number`` counts from 1 in a name."""

    id: str
    project_id: str
    name: str
    number: int  # 0 before the repository has numbered it
    base_model: str
    template_hash: str
    artifacts: str  # folder name below models/registry
    job_id: str | None
    dataset_digest: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    created_by: str | None
    created_at: datetime

    @property
    def reference(self) -> str:
        return f"{self.name}:{self.number}"

    @property
    def generates(self) -> bool:
        """Whether it answers with text; one with a label head does not."""
        return self.config.get("objective") != "classification"

    @property
    def is_whole_model(self) -> bool:
        """Whether its artifacts are a model folder of their own, not an adapter over its base model."""
        return self.config.get("adaptation") == "full"


def not_generative(name: str) -> Invalid:
    """For a request of text from what has none to give: a label head, or an encoder."""
    return Invalid(
        f"{name} reads text and writes none: it tells labels. Ask a model of another objective",
        code="not_generative",
    )


@dataclass(frozen=True, slots=True)
class ModelSummary:
    name: str
    base_model: str
    versions: int
    latest: int
    updated_at: datetime
    metrics: Mapping[str, Any] = field(default_factory=dict)


_REFERENCE = re.compile(r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63})(?::(?P<number>[1-9][0-9]{0,8}))?$")


@dataclass(frozen=True, slots=True)
class Reference:
    """``name`` (its newest version) or ``name:3``."""

    name: str
    number: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        match = _REFERENCE.fullmatch(text)  # `$` alone would let a newline pass
        if match is None:
            raise Invalid(f"{text[:80]!r} is not a model reference: write name or name:3")
        number = match["number"]
        return cls(match["name"], int(number) if number else None)
