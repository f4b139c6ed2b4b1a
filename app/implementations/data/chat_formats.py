"""Conversations as other tools write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from app.core.entities.datasets import Conversation, Message
from app.core.interfaces.components import DataFormat
from app.implementations.data.formats import TURN, is_chatml, is_plain_text
from app.implementations.data.validation import (
    Faults,
    Spelling,
    check_messages,
    check_text,
    to_messages,
)

_SHAREGPT = Spelling(
    "from",
    "value",
    {"human": "user", "gpt": "assistant", "system": "system", "user": "user", "assistant": "assistant"},
)
_END = "<|im_end|>"
_CHATML_TURN = re.compile(rf"{re.escape(TURN)}([^\n<]*)\n(.*?){re.escape(_END)}\s*", re.DOTALL)


class ShareGptFormat(DataFormat):
    """``{"conversations": [{"from": "human", "value"}, {"from": "gpt", "value"}, …]}``, perhaps a ``system``."""

    name = "sharegpt"
    columns = frozenset({"conversations", "system"})

    def recognises(self, row: Mapping[str, Any]) -> bool:
        return "conversations" in row and row.keys().isdisjoint({"messages", "chosen", "rejected"})

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        faults = Faults()
        turns = row["conversations"]
        check_messages(turns, faults, "conversations", spelling=_SHAREGPT)
        system = row.get("system") or None
        if system is not None:
            check_text("system", system, faults)
            if not faults and turns[0]["from"] == "system":
                faults.add("system", "role_order", "is given, and so is a turn of the system: keep one")
        faults.raise_any()
        first: list[Message] = [{"role": "system", "content": system}] if system else []
        return Conversation(0, [*first, *to_messages(turns, _SHAREGPT)])


class ChatMlFormat(DataFormat):
    """``{"text": "<|im_start|>user\\n…<|im_end|>\\n<|im_start|>assistant\\n…<|im_end|>"}``: a rendered chat.

    A plain text that does not begin so is a plain text. In faults ``text[2]`` is the third turn.
    """

    name = "chatml"
    columns = frozenset({"text"})

    def recognises(self, row: Mapping[str, Any]) -> bool:
        return is_plain_text(row) and is_chatml(row["text"])

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        faults = Faults()
        turns = _turns(row["text"], faults) if check_text("text", row["text"], faults) else []
        if not faults:
            check_messages(turns, faults, "text")
        faults.raise_any()
        return Conversation(0, to_messages(turns))


def _turns(text: str, faults: Faults) -> list[dict[str, str]]:
    turns = []
    place = 0
    while place < len(text) and not faults:
        found = _CHATML_TURN.match(text, place)
        where = f"at character {place + 1}"
        if found is None:
            faults.add("text", "invalid_chatml", f"has no turn {TURN}role, line break, …{_END} {where}")
        elif TURN in found[2]:
            faults.add("text", "invalid_chatml", f"the turn {where} has no {_END} before the next begins")
        else:
            turns.append({"role": found[1].strip(), "content": found[2]})
            place = found.end()
    return turns
