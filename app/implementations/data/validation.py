"""The structural checks of data: what can be said of a row without a tokenizer, every fault at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from app.core.entities.datasets import SPLITS, Message
from app.core.errors import Fault, Invalid

MAX_FAULTS = 100  # listed; one more says how many there are beyond
MAX_COUNTED = 10_000  # where a check gives up: a megabyte of faults would take it seconds
MAX_DEPTH = 32  # of lists and objects in a row

ROLES = ("system", "user", "assistant")
_UNTRAINABLE = re.compile("[\0\ud800-\udfff]")
# Parts of a message that would be dropped without a word, and what is trained would not be what was meant.
_IGNORED_IF = {"weight": (None, 1), "tool_calls": (None, []), "function_call": (None,)}


class Faults:
    """Keeps the first hundred and counts the rest, up to where it is ``hopeless``."""

    def __init__(self) -> None:
        self._kept: list[Fault] = []
        self._beyond = 0

    def add(self, where: str, code: str, message: str) -> None:
        if len(self._kept) < MAX_FAULTS:
            self._kept.append(Fault(where, code, message))
        else:
            self._beyond += 1

    def __len__(self) -> int:
        return len(self._kept) + self._beyond

    @property
    def hopeless(self) -> bool:
        return len(self) >= MAX_COUNTED

    def listed(self, where: str) -> tuple[Fault, ...]:
        if not self._beyond:
            return tuple(self._kept)
        how_many = f"at least {self._beyond}" if self.hopeless else str(self._beyond)
        return (*self._kept, Fault(where, "more_faults", f"{how_many} more faults are not listed"))

    def raise_any(self) -> None:
        """``Invalid`` (invalid_row) if there are any."""
        if self._kept:
            raise Invalid("the row has faults", code="invalid_row", faults=self.listed("row"))


def check_text(where: str, value: Any, faults: Faults) -> bool:
    """A text that says something, in characters that can be encoded."""
    if not isinstance(value, str):
        faults.add(where, "wrong_type", f"must be a text, not {json_type(value)}")
    elif not value.strip():
        faults.add(where, "empty", "is empty")
    elif _UNTRAINABLE.search(value):
        faults.add(where, "invalid_text", "has a NUL or a lone surrogate, which no tokenizer takes")
    else:
        return True
    return False


def check_messages(messages: Any, faults: Faults, where: str = "messages", last: str = "assistant") -> None:
    """A list of messages: perhaps a system's, then user and assistant in turn; ``last`` is who ends it."""
    if not isinstance(messages, list):
        faults.add(where, "wrong_type", f"must be a list of messages, not {json_type(messages)}")
        return
    if not messages:
        faults.add(where, "empty", "has no messages")
        return
    roles = []
    for place, message in enumerate(messages):
        if faults.hopeless:
            return
        roles.append(_check_message(f"{where}[{place}]", message, faults))
    if None not in roles:
        _check_order(roles, faults, where, last)


def check_answer(where: str, answer: Any, faults: Faults) -> None:
    """One answer to a prompt: a text, or a list of one message of the assistant's."""
    if not isinstance(answer, list):
        check_text(where, answer, faults)
    elif len(answer) != 1:
        faults.add(where, "not_one_answer", f"must be one message of the assistant, not {len(answer)}")
    elif _check_message(f"{where}[0]", answer[0], faults) not in (None, "assistant"):
        faults.add(f"{where}[0].role", "role_order", "must be the assistant's")


def _check_message(where: str, message: Any, faults: Faults) -> str | None:
    """Its role, if that is a known one."""
    if not isinstance(message, dict):
        faults.add(where, "wrong_type", f"must be an object with role and content, not {json_type(message)}")
        return None
    role = message.get("role")
    if "role" not in message:
        faults.add(f"{where}.role", "missing", f"is missing: one of {', '.join(ROLES)}")
    elif role not in ROLES:
        faults.add(f"{where}.role", "unknown_role", f"must be one of {', '.join(ROLES)}")
    if "content" in message:
        check_text(f"{where}.content", message["content"], faults)
    else:
        faults.add(f"{where}.content", "missing", "is missing")
    for key, harmless in _IGNORED_IF.items():
        if message.get(key) not in harmless:
            faults.add(f"{where}.{key}", "not_supported", "is not supported: leave it out")
    return role if role in ROLES else None


def _check_order(roles: Sequence[str | None], faults: Faults, where: str, last: str) -> None:
    turns = roles[1:] if roles[0] == "system" else roles
    first = len(roles) - len(turns)
    for place, role in enumerate(turns):
        expected = ("user", "assistant")[place % 2]
        if role != expected:
            faults.add(
                f"{where}[{first + place}].role",
                "role_order",
                f"is {role}, where {expected} is due: perhaps a system message, then user and assistant in turn",
            )
            break  # all that follows would be out of step too
    if roles[-1] != last:
        code, missing = ("no_answer", "answer") if last == "assistant" else ("no_question", "question")
        faults.add(where, code, f"ends with a message of the {roles[-1]}: the {missing} is missing")


def check_row_shape(row: Any, faults: Faults) -> bool:
    """An object, not nested beyond all use."""
    if not isinstance(row, dict):
        faults.add("", "wrong_type", f"must be an object, not {json_type(row)}")
    elif _deeper_than(MAX_DEPTH, row):
        faults.add("", "too_deep", f"is nested more than {MAX_DEPTH} deep")
    else:
        return True
    return False


def check_split(row: Mapping[str, Any], others_have_one: bool, faults: Faults) -> None:
    split = row.get("split")
    if split is None and others_have_one:
        faults.add("split", "missing", "is missing, and other rows have one: give it to all rows or to none")
    elif split is not None and split not in SPLITS:
        faults.add("split", "unknown_split", f"must be one of {', '.join(SPLITS)}")


def to_messages(raw: Sequence[Mapping[str, Any]]) -> list[Message]:
    return [{"role": message["role"], "content": message["content"]} for message in raw]


def json_type(value: Any) -> str:
    """What JSON calls it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "true or false"
    names = {str: "a text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names[type(value)]


def _deeper_than(limit: int, value: Any) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
