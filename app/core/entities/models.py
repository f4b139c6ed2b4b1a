"""Base models, published versions and references to them."""

import hashlib
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from app.core.entities.engines import EngineKind, has_label_head, is_whole_model, not_servable
from app.core.errors import Invalid, NotFound


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
    base_digest: str | None = None  # of the base model's weights; None: a version of earlier days
    pinned: bool = False  # whether engines keep its adapter in memory; an operator's mark, which may change
    size: int = 0  # bytes of its artifacts; 0: a version of earlier days

    @property
    def reference(self) -> str:
        return f"{self.name}:{self.number}"

    @property
    def servable(self) -> Mapping[str, bool | str]:
        """By kind of engine: True, or why not."""
        return {kind.value: not_servable(self.config, kind) or True for kind in EngineKind}

    @property
    def generates(self) -> bool:
        """Whether it answers with text; one with a label head does not."""
        return not has_label_head(self.config)

    @property
    def is_whole_model(self) -> bool:
        """Whether its artifacts are a model folder of their own, not an adapter over its base model."""
        return is_whole_model(self.config)


def not_generative(name: str) -> Invalid:
    """For a request of text from what has none to give: a label head, or an encoder."""
    return Invalid(
        f"{name} reads text and writes none: it tells labels. Ask a model of another objective",
        code="not_generative",
    )


def no_model(name: str) -> NotFound:
    """For a name that is neither a version's nor a base model's."""
    return NotFound(f"there is no model {name[:80]!r} in this project", code="model_not_found")


@dataclass(frozen=True, slots=True)
class ModelSummary:
    name: str
    base_model: str
    versions: int
    latest: int
    updated_at: datetime
    metrics: Mapping[str, Any] = field(default_factory=dict)


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REFERENCE = re.compile(rf"(?P<name>{NAME.pattern})(?::(?P<number>[1-9][0-9]{{0,8}})|@(?P<alias>{NAME.pattern}))?")
CHAMPION = "champion"  # the alias that a bare name stands for, where the model has it


@dataclass(frozen=True, slots=True)
class Reference:
    """``name`` (its champion, else its newest version), ``name:3`` or ``name@alias``."""

    name: str
    number: int | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise Invalid(f"{text[:80]!r} is not a model reference: write name, name:3 or name@alias")
        number = match["number"]
        return cls(match["name"], int(number) if number else None, match["alias"])

    @property
    def is_bare(self) -> bool:
        return self.number is None and self.alias is None


@dataclass(frozen=True, slots=True)
class ModelAlias:
    """A name for one version of a model, or for several: ``weights`` has each number's share, 1 at least."""

    project_id: str
    model: str
    alias: str
    weights: Mapping[int, int]
    set_by: str | None
    set_at: datetime

    @property
    def reference(self) -> str:
        return f"{self.model}@{self.alias}"

    def draw(self, conversation: str | None = None) -> int:
        """A version's number, by weight; the same for the same conversation while the weights stay.

        Weighted rendezvous hashing (Schindelhauer and Schomaker 2005): each version draws its own exponential time
        for the conversation, and the first has it. So a changed weight takes conversations to or from that
        version alone, and as few as it must.
        """
        drawn = conversation or secrets.token_hex(8)

        def time(number: int) -> float:
            text = "\0".join((self.project_id, self.model, self.alias, str(number), drawn))
            digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
            uniform = (int.from_bytes(digest[:6]) + 1) / 2**48
            return -math.log(uniform) / self.weights[number]

        return min(sorted(self.weights), key=time)

    def the_one(self) -> int:
        """Where there is nothing to draw: ``Invalid`` (split_alias) if it carries several."""
        if len(self.weights) > 1:
            named = " or ".join(f"{self.model}:{number}" for number in sorted(self.weights))
            raise Invalid(f"{self.reference} is split between versions: write {named}", code="split_alias")
        return next(iter(self.weights))
