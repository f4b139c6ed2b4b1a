"""Conversations to train on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, TypedDict

from app.core.errors import Fault, NotFound

Split = Literal["train", "validation", "test"]
IGNORED = -100  # the label of a token without loss: torch's default ignore_index
RowShape = Literal["a conversation", "a preference pair", "a plain text", "a labelled text"]  # as faults say it
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Message(TypedDict):
    """One with ``tool_calls``, or of a ``tool``, is only rendered to ask a model: no row to train on has it."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    tool_calls: NotRequired[Sequence[Mapping[str, Any]]]  # as chat templates have them: arguments are an object
    tool_call_id: NotRequired[str]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row after conversion. ``row`` is its 1-based place in the file; ``extra`` keeps the other columns.

    A plain text has no messages.
    """

    row: int
    messages: Sequence[Message]
    split: Split | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    rejected: Message | None = None  # of a preference pair: the answer liked less, in place of the last message
    text: str | None = None  # a plain text, to pretrain on or to classify: then it has a label
    label: str | None = None

    @property
    def shape(self) -> RowShape:
        if self.text is not None:
            return "a plain text" if self.label is None else "a labelled text"
        return "a conversation" if self.rejected is None else "a preference pair"


def canonical(row: Conversation) -> dict[str, Any]:
    """All that a row says, without its place; only what some rows have is left out where it is not there."""
    always = {"messages": list(row.messages), "extra": dict(row.extra)}
    given = {name: getattr(row, name) for name in ("split", "rejected", "text", "label")}
    return always | {name: value for name, value in given.items() if value is not None}


def row_key(row: Conversation) -> str:
    """The same for rows that say the same, on any machine."""
    return hashlib.sha256(json.dumps(canonical(row), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class DataLimits:
    """What a file of data may hold at most. A fault that comes of one names its setting, ``data_max_<field>``."""

    rows: int = 5_000_000
    bytes: int = 4 * 1024**3  # of a file, and of what a parquet file unpacks to
    row_bytes: int = 16 * 1024**2
    turns: int = 1000  # messages of a conversation
    depth: int = 32  # of lists and objects in a row


@dataclass(frozen=True, slots=True)
class DatasetCheck:
    """The outcome of the structural check of a file: every fault at once, or the rows."""

    path: str  # as the client named it
    digest: str  # sha256 of the file's bytes
    rows: int  # that are sound
    faults: tuple[Fault, ...]
    format: str | None = None  # of the first sound row: a name of bootstrap's DATA_FORMATS


@dataclass(frozen=True, slots=True)
class PreparedDataset:
    """An immutable cut under data/processed/<digest>-<seed>: train.parquet, validation.parquet, test.parquet."""

    folder: str  # absolute
    counts: Mapping[str, int]
    pipeline: Mapping[str, Any] = field(default_factory=dict)  # the report of the pipeline that made the rows


@dataclass(frozen=True, slots=True)
class TokenizedRow:
    """``labels[i]`` is ``input_ids[i]`` where the token is supervised, else ``IGNORED``. Equal lengths."""

    row: int
    input_ids: Sequence[int]
    labels: Sequence[int]
    truncated: int = 0  # tokens cut off, of both answers of a pair
    class_id: int | None = None  # of a labelled row
    rejected: "TokenizedRow | None" = None  # of a preference pair: the other answer to the same prompt
    # Written by the template after the last end of turn, of both answers. Not in repr: checkpoints pin rows by it.
    dropped: int = field(default=0, repr=False)

    @property
    def tokens(self) -> int:
        return len(self.input_ids) + (self.rejected.tokens if self.rejected else 0)

    @property
    def supervised(self) -> int:
        """Labels that count: a row's first token is nobody's target. A labelled row has one, its class."""
        own = sum(label != IGNORED for label in self.labels[1:]) + (self.class_id is not None)
        return own + (self.rejected.supervised if self.rejected else 0)


def no_row(number: int, numbers: Sequence[int]) -> NotFound:
    """Say that no row has that number, and which have one."""
    held = f"{min(numbers)} to {max(numbers)}" if numbers else "none"
    return NotFound(f"there is no row {number}: the rows are {held}", code="row_not_found")


@dataclass(frozen=True, slots=True)
class TokenSummary:
    """Tokens of one split, for one base model, after truncation to ``max_length``."""

    supervised: int  # the loss is on these: the assistant's, of a pair both answers, of a plain text all
    unsupervised: int
    truncated_rows: int
    truncated: int  # tokens cut off
    row_lengths: Mapping[int, int]  # percentile → tokens of a row, or of either answer of a pair with its prompt


@dataclass(frozen=True, slots=True)
class SplitSummary:
    split: str
    rows: int
    tokens: TokenSummary | None  # None if no base model was named, or there are no rows
