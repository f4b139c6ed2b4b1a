"""Datasets of a project and their versions: immutable cuts of rows with their lineage."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from app.core.entities.datasets import Conversation
from app.core.errors import Invalid

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_REFERENCE = re.compile(
    r"(?P<id>ds-[0-9a-f]{24})(?::(?P<number>[1-9][0-9]{0,8})|@(?P<tag>[A-Za-z0-9][A-Za-z0-9._-]{0,63}))?"
)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A name in a project, under which versions are kept."""

    id: str
    project_id: str
    name: str
    created_by: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """``digest`` is the address of the rows: the same rows have the same one on any machine."""

    dataset_id: str
    project_id: str
    number: int  # from 1 within the dataset; 0 before the repository has numbered it
    digest: str
    format: str  # that the rows came in
    rows: int
    size: int  # bytes, as stored
    source: str  # the file's name as its owner gave it, or what was done with the parent
    parent: int | None  # the version that it was made of
    pipeline: Mapping[str, Any]  # what made it of the parent; {} for an upload
    changes: Sequence[Mapping[str, Any]]  # what each step of the pipeline changed
    created_by: str | None
    created_at: datetime

    @property
    def reference(self) -> str:
        return f"{self.dataset_id}:{self.number}"


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """A dataset with its newest version, and the version that each tag names."""

    dataset: Dataset
    newest: DatasetVersion
    tags: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DatasetReference:
    """``ds-…`` (its newest version), ``ds-…:3`` or ``ds-…@tag``."""

    id: str
    number: int | None = None
    tag: str | None = None

    @classmethod
    def parse(cls, text: str) -> "DatasetReference":
        """``Invalid`` (bad_reference)."""
        found = _REFERENCE.fullmatch(text)
        if found is None:
            raise Invalid(
                f"{text[:80]!r} is no dataset: write ds-… as its upload answered, ds-…:3 or ds-…@tag",
                code="bad_reference",
            )
        number = found["number"]
        return cls(found["id"], int(number) if number else None, found["tag"])


ChangeKind = Literal["added", "removed", "changed"]


@dataclass(frozen=True, slots=True)
class DatasetPage:
    """``next`` is the ``after`` of the page that follows, None on the last."""

    datasets: Sequence[DatasetSummary]
    next: str | None


@dataclass(frozen=True, slots=True)
class RowChange:
    kind: ChangeKind
    before: Conversation | None
    after: Conversation | None


@dataclass(frozen=True, slots=True)
class DatasetDiff:
    """Rows by what became of them; ``changes`` holds the first ones."""

    before: str  # references
    after: str
    unchanged: int
    counts: Mapping[ChangeKind, int]
    changes: Sequence[RowChange]
