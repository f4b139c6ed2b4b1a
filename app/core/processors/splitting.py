"""Which row trains, which validates, which tests."""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping, Sequence

from app.core.entities.data_pipeline import SplittingOptions
from app.core.entities.datasets import SPLITS, Conversation, Split
from app.core.errors import Fault, Invalid

_FEWEST_GROUPS = 3  # below, everything trains
_DEFAULT = SplittingOptions()

Groups = Sequence[Sequence[Conversation]]
Parts = Mapping[Split, Sequence[Conversation]]


def split(
    conversations: Sequence[Conversation],
    seed: int,
    options: SplittingOptions = _DEFAULT,
    together: Sequence[int] | None = None,
) -> Parts:
    """Each row's own ``split`` if rows carry one, else by ``options``, the same for the same seed.

    Rows whose first question is the same, but for case and white space, stay together: a question that is trained
    on is never tested. So do equal plain texts, rows with an equal ``group_by`` column, and rows with the same
    number in ``together``. With fewer than three groups, everything trains.
    """
    if conversations and conversations[0].split is not None:
        return {name: [c for c in conversations if c.split == name] for name in SPLITS}
    keys: list[Sequence[Hashable]] = [[first_question(c) for c in conversations]]
    if options.group_by is not None:
        keys.append(_column(conversations, options.group_by))
    if together is not None:
        keys.append(together)
    groups = _grouped(conversations, keys)
    if len(groups) < _FEWEST_GROUPS:
        return {"train": conversations, "validation": [], "test": []}
    shuffled = list(groups)
    random.Random(seed).shuffle(shuffled)  # noqa: S311 # nosec B311 # no secret
    deal = _deal_by_label if options.method == "stratified" else _deal
    dealt = deal(shuffled, len(conversations), options)
    return {name: sorted(part, key=lambda c: c.row) for name, part in dealt.items()}


def first_question(conversation: Conversation) -> str:
    asked = (message["content"] for message in conversation.messages if message["role"] == "user")
    return " ".join((conversation.text or next(asked, "")).split()).casefold()


def label_of(conversation: Conversation) -> str | None:
    """A labelled row's label, else the column ``label``."""
    label = conversation.extra.get("label") if conversation.label is None else conversation.label
    return None if label is None else str(label)


def _column(conversations: Sequence[Conversation], column: str) -> Sequence[Hashable]:
    """Its values; a row without one is a group of its own."""
    if conversations and not any(column in c.extra for c in conversations):
        known = sorted({key for c in conversations[:1000] for key in c.extra})
        message = f"no row has the column {column!r}: the columns are {', '.join(known) or 'none'}"
        raise Invalid(
            message, code="unknown_column", faults=[Fault("splitting.group_by", "unknown_column", message)]
        )
    # A text and a number that look alike are two values; a list or an object is told by how it is written.
    return [
        ("none", place) if (value := c.extra.get(column)) is None else (type(value).__name__, repr(value))
        for place, c in enumerate(conversations)
    ]


def _grouped(conversations: Sequence[Conversation], keys: Sequence[Sequence[Hashable]]) -> Groups:
    """Rows that share any key, also through others, in the order of their first rows."""
    union = Union(len(conversations))
    for values in keys:
        first: dict[Hashable, int] = {}
        for place, value in enumerate(values):
            union.join(first.setdefault(value, place), place)
    groups: dict[int, list[Conversation]] = {}
    for place, conversation in enumerate(conversations):
        groups.setdefault(union.root(place), []).append(conversation)
    return list(groups.values())


def _deal(groups: Groups, rows: int, options: SplittingOptions) -> dict[Split, list[Conversation]]:
    """A group validates or tests where it fits into that share (of one row at least); the others train."""
    dealt: dict[Split, list[Conversation]] = {name: [] for name in SPLITS}
    room = {name: max(1, round(rows * share)) for name, share in _shares(options) if share}
    for group in groups:
        fitting = (name for name in room if len(dealt[name]) + len(group) <= room[name])
        dealt[next(fitting, "train")].extend(group)
    return dealt


def _deal_by_label(groups: Groups, rows: int, options: SplittingOptions) -> dict[Split, list[Conversation]]:
    """Label by label, what is due to a split carried on to the next label; each label's first group trains."""
    by_label: dict[str, list[Sequence[Conversation]]] = {}
    for group in groups:
        by_label.setdefault(label_of(group[0]) or "", []).append(group)
    dealt: dict[Split, list[Conversation]] = {name: [] for name in SPLITS}
    shares = {name: share for name, share in _shares(options) if share}
    due = dict.fromkeys(shares, 0.0)
    for label in sorted(by_label):
        first, *others = by_label[label]
        dealt["train"].extend(first)
        if others:
            due = {name: due[name] + share * len(first) for name, share in shares.items()}
        for group in others:
            due = {name: due[name] + share * len(group) for name, share in shares.items()}
            chosen: Split = next((name for name in due if 2 * due[name] >= len(group)), "train")
            if chosen in due:
                due[chosen] -= len(group)
            dealt[chosen].extend(group)
    return dealt


def _shares(options: SplittingOptions) -> Sequence[tuple[Split, float]]:
    return ("validation", options.validation), ("test", options.test)


class Union:
    """Places that hang together, named by the first of them."""

    def __init__(self, size: int) -> None:
        self._above = list(range(size))

    def root(self, place: int) -> int:
        while self._above[place] != place:
            self._above[place] = self._above[self._above[place]]
            place = self._above[place]
        return place

    def join(self, one: int, other: int) -> None:
        one, other = sorted((self.root(one), self.root(other)))
        self._above[other] = one
