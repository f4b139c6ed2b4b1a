"""A row as the model will read it, token by token."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from app.core.entities.ledger import TokenCount
from app.core.entities.reasoning import Reasoning

Kind = Literal["trained", "masked", "truncated"]


@dataclass(frozen=True, slots=True)
class PreviewToken:
    """``text`` is "" of one that only begins a character: the character stands with its last token."""

    id: int
    text: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class PreviewSequence:
    """``name``: row, chosen, rejected, or piece 2 of a long text, less the token that it shares with piece 1."""

    name: str
    tokens: tuple[PreviewToken, ...]


@dataclass(frozen=True, slots=True)
class RowPreview:
    """``count`` is the ledger's; what is dropped is in no sequence. ``label`` is a labelled text's."""

    row: int
    objective: str
    reasoning: Reasoning
    sequences: tuple[PreviewSequence, ...]
    count: TokenCount
    label: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = asdict(self)
        return {**found, "count": {**found["count"], "total": self.count.total}}
