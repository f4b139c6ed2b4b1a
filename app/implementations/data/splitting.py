"""Which row trains, which validates, which tests."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from app.core.entities.datasets import SPLITS, Conversation, Split

_VALIDATION_SHARE = 0.1
_TEST_SHARE = 0.1
_FEWEST_GROUPS = 3  # below, everything trains


def split(conversations: Sequence[Conversation], seed: int) -> Mapping[Split, Sequence[Conversation]]:
    """Each row's own ``split`` if rows carry one, else at random, 80/10/10, the same for the same seed.

    Rows whose first question is the same, but for case and white space, stay together: a question that is trained
    on is never tested. So do equal plain texts. With fewer than three different ones, everything trains.
    """
    if conversations and conversations[0].split is not None:
        return {name: [c for c in conversations if c.split == name] for name in SPLITS}
    groups: dict[str, list[Conversation]] = {}
    for conversation in conversations:
        groups.setdefault(_first_question(conversation), []).append(conversation)
    if len(groups) < _FEWEST_GROUPS:
        return {"train": conversations, "validation": [], "test": []}
    shuffled = list(groups.values())
    random.Random(seed).shuffle(shuffled)  # noqa: S311  (no secret)
    return _deal(shuffled, len(conversations))


def _deal(groups: Sequence[Sequence[Conversation]], rows: int) -> Mapping[Split, Sequence[Conversation]]:
    """A group validates or tests where it fits into that share (of one row at least); the others train."""
    dealt: dict[Split, list[Conversation]] = {"train": [], "validation": [], "test": []}
    shares: Sequence[tuple[Split, float]] = (("validation", _VALIDATION_SHARE), ("test", _TEST_SHARE))
    for group in groups:
        fitting = (name for name, share in shares if len(dealt[name]) + len(group) <= max(1, round(rows * share)))
        dealt[next(fitting, "train")].extend(group)
    return {name: sorted(part, key=lambda c: c.row) for name, part in dealt.items()}


def _first_question(conversation: Conversation) -> str:
    asked = (message["content"] for message in conversation.messages if message["role"] == "user")
    return " ".join((conversation.text or next(asked)).split()).casefold()
