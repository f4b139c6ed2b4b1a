"""The token ledger: what becomes of each token of a cut, counted from the rows as they are trained on."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter

from app.core.entities.datasets import SPLITS, Split, TokenizedRow
from app.core.entities.ledger import SplitTokens, TokenCount, TokenLedger


def make_ledger(
    rows: Iterable[tuple[Split, Sequence[TokenizedRow]]], stops: Collection[int], train_samples: int | None = None
) -> TokenLedger:
    """``rows`` are pairs of a split and what ``encode`` makes of one of its rows, in the order of the cut.

    ``stops`` are the tokenizer's end tokens. Training rows after the first ``train_samples`` are not used.
    """
    ends = frozenset(stops)
    splits = {split: SplitTokens() for split in SPLITS}
    for split, pieces in rows:
        before = splits[split]
        used = split != "train" or train_samples is None or before.rows < train_samples
        count = count_row(pieces)
        splits[split] = SplitTokens(
            before.rows + 1,
            before.tokens + (count if used else TokenCount(dropped=count.total)),
            before.ended_rows + (used and _trains_an_end(pieces, ends)),
            max([before.longest, *(piece.tokens for piece in pieces)]),
        )
    return TokenLedger(splits)


def count_row(pieces: Sequence[TokenizedRow]) -> TokenCount:
    """The tokens of one row: both answers of a pair, and the prompt with each, for it is read twice.

    A later piece of a long text begins with the last token of the one before, which is counted there alone. A row
    with nothing to train on is dropped.
    """
    trained = sum(piece.supervised for piece in pieces)
    read = sum(piece.tokens for piece in pieces) - (len(pieces) - 1)
    truncated = sum(piece.truncated for piece in pieces)
    dropped = sum(piece.dropped for piece in pieces)
    if not trained:
        return TokenCount(truncated=truncated, dropped=dropped + read)
    return TokenCount(trained, read - trained, truncated, dropped)


def by_row(rows: Iterable[TokenizedRow]) -> Iterator[Sequence[TokenizedRow]]:
    """The pieces of each row together."""
    return (list(pieces) for _, pieces in groupby(rows, key=attrgetter("row")))


def first_rows(rows: Sequence[TokenizedRow], limit: int | None) -> Sequence[TokenizedRow]:
    """The pieces of the first ``limit`` rows."""
    if limit is None:
        return rows
    return [piece for place, pieces in enumerate(by_row(rows)) if place < limit for piece in pieces]


def _trains_an_end(pieces: Sequence[TokenizedRow], ends: frozenset[int]) -> bool:
    sequences = [part for piece in pieces for part in (piece, piece.rejected) if part]
    return any(not ends.isdisjoint(part.labels[1:]) for part in sequences)
