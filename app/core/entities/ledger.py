"""What becomes of each token that a tokenizer makes of a cut."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from app.core.entities.datasets import Split


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Of a row or of many. Each token is exactly one of the four."""

    trained: int = 0  # a target of the loss; of a labelled text, the one token at which its label is read
    masked: int = 0  # read without a loss: the prompt, and a sequence's first token, which nothing precedes
    truncated: int = 0  # beyond max_length, or beyond what the model can read
    dropped: int = 0  # never read: what a template writes after the last end of turn, rows past train_samples

    @property
    def total(self) -> int:
        """What the tokenizer made of the whole input."""
        return self.trained + self.masked + self.truncated + self.dropped

    def __add__(self, other: "TokenCount") -> "TokenCount":
        return TokenCount(
            self.trained + other.trained,
            self.masked + other.masked,
            self.truncated + other.truncated,
            self.dropped + other.dropped,
        )


@dataclass(frozen=True, slots=True)
class SplitTokens:
    """``ended_rows`` are those of the rows in use whose end token is trained; the rest lose it to max_length."""

    rows: int = 0
    tokens: TokenCount = TokenCount()
    ended_rows: int = 0
    longest: int = 0  # tokens that one forward pass takes of a row, or of a piece of one


@dataclass(frozen=True, slots=True)
class TokenLedger:
    """Of a cut, by one base model's tokenizer and one training config.

    A pass over the training rows trains ``splits["train"].tokens.trained`` tokens. Test rows are counted as they
    would be trained on, though nothing is.
    """

    splits: Mapping[Split, SplitTokens]

    @property
    def all(self) -> TokenCount:
        return sum((split.tokens for split in self.splits.values()), TokenCount())

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        splits = {
            name: {
                "rows": split.rows,
                "ended_rows": split.ended_rows,
                "longest": split.longest,
                **asdict(split.tokens),
                "total": split.tokens.total,
            }
            for name, split in self.splits.items()
        }
        return {"splits": splits, "all": {**asdict(self.all), "total": self.all.total}}
