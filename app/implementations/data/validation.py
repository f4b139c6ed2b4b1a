"""The structural checks of data: what can be said of a row without a tokenizer, every fault at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.core.entities.datasets import SPLITS, Message
from app.core.errors import Fault, Invalid

MAX_FAULTS = 100  # listed; one more says how many there are beyond
MAX_COUNTED = 10_000  # where a check gives up: a megabyte of faults would take it seconds

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")
_SURROGATE = re.compile("[\ud800-\udfff]")
# Parts of a message that would be dropped without a word, and what is trained would not be what was meant.
_IGNORED_IF = {"weight": (None, 1), "tool_calls": (None, []), "function_call": (None,)}


@dataclass(frozen=True, slots=True)
class Spelling:
    """What a format calls the parts of a message, and the roles."""

    role: str
    content: str
    roles: Mapping[str, Role]


OURS = Spelling("role", "content", {role: role for role in ROLES})


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

    def take(self, fault: Fault) -> None:
        self.add(fault.where, fault.code, fault.message)

    def count_beyond(self, more: int) -> None:
        """Faults that have no place in the list."""
        self._beyond += more

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

    def raise_any(
        self, message: str = "the row has faults", code: str = "invalid_row", where: str = "row"
    ) -> None:
        """``Invalid`` if there are any."""
        if self._kept:
            raise Invalid(message, code=code, faults=self.listed(where))


def check_text(where: str, value: Any, faults: Faults) -> bool:
    """A text that says something, in characters that can be encoded."""
    if not isinstance(value, str):
        faults.add(where, "wrong_type", f"must be a text, not {json_type(value)}")
    elif not value.strip():
        faults.add(where, "empty", "is empty")
    elif not is_unicode(value):
        faults.add(where, "invalid_text", "has a NUL or a lone surrogate, which no tokenizer takes")
    else:
        return True
    return False


def is_unicode(text: str) -> bool:
    """Whether a tokenizer takes it: no NUL, no half of a surrogate pair. (Asked of every text: in this order.)"""
    return "\0" not in text and (text.isascii() or not _SURROGATE.search(text))


def check_messages(
    messages: Any, faults: Faults, where: str = "messages", last: Role = "assistant", spelling: Spelling = OURS
) -> None:
    """A list of messages: perhaps a system's, then user and assistant in turn; ``last`` is who ends it."""
    if not isinstance(messages, list):
        faults.add(where, "wrong_type", f"must be a list of messages, not {json_type(messages)}")
        return
    if not messages:
        faults.add(where, "empty", "has no messages")
        return
    roles: list[Role] = []
    for place, message in enumerate(messages):
        role = _role_if_sound(message, spelling)
        if role is None:
            role = _check_message(f"{where}[{place}]", message, faults, spelling)
            if faults.hopeless:
                return
        if role is not None:
            roles.append(role)
    if len(roles) == len(messages):
        _check_order(roles, faults, where, last, spelling)


def _role_if_sound(message: Any, spelling: Spelling) -> Role | None:
    """What ``_check_message`` says of a message without faults and other keys, as nearly all are: quickly."""
    if type(message) is not dict or len(message) != 2:
        return None
    role, content = message.get(spelling.role), message.get(spelling.content)
    if type(role) is str and type(content) is str and is_unicode(content) and not content.isspace() and content:
        return spelling.roles.get(role)
    return None


def check_answer(where: str, answer: Any, faults: Faults) -> None:
    """One answer to a prompt: a text, or a list of one message of the assistant's."""
    if not isinstance(answer, list):
        check_text(where, answer, faults)
    elif len(answer) != 1:
        faults.add(where, "not_one_answer", f"must be one message of the assistant, not {len(answer)}")
    elif _check_message(f"{where}[0]", answer[0], faults) not in (None, "assistant"):
        faults.add(f"{where}[0].role", "role_order", "must be the assistant's")


def _check_message(where: str, message: Any, faults: Faults, spelling: Spelling = OURS) -> Role | None:
    """Its role, if that is a known one."""
    role_key, content_key = spelling.role, spelling.content
    if not isinstance(message, dict):
        kind = json_type(message)
        faults.add(where, "wrong_type", f"must be an object with {role_key} and {content_key}, not {kind}")
        return None
    named = message.get(role_key)
    role = spelling.roles.get(named) if isinstance(named, str) else None
    if role_key not in message:
        faults.add(f"{where}.{role_key}", "missing", f"is missing: one of {', '.join(spelling.roles)}")
    elif role is None:
        faults.add(f"{where}.{role_key}", "unknown_role", f"must be one of {', '.join(spelling.roles)}")
    if content_key in message:
        check_text(f"{where}.{content_key}", message[content_key], faults)
    else:
        faults.add(f"{where}.{content_key}", "missing", "is missing")
    for key, harmless in _IGNORED_IF.items():
        if message.get(key) not in harmless:
            faults.add(f"{where}.{key}", "not_supported", "is not supported: leave it out")
    return role


def _check_order(roles: Sequence[Role], faults: Faults, where: str, last: Role, spelling: Spelling) -> None:
    first = 1 if roles[0] == "system" else 0
    for place in range(first, len(roles)):
        expected = ("user", "assistant")[(place - first) % 2]
        if roles[place] != expected:
            faults.add(
                f"{where}[{place}].{spelling.role}",
                "role_order",
                f"is {roles[place]}, where {expected} is due: perhaps a system message, then user and assistant "
                "in turn",
            )
            break  # all that follows would be out of step too
    if roles[-1] != last:
        code, missing = ("no_answer", "answer") if last == "assistant" else ("no_question", "question")
        faults.add(where, code, f"ends with a message of the {roles[-1]}: the {missing} is missing")


def too_deep(limit: int) -> str:
    return f"is nested more than {limit} deep (data_max_depth)"


def check_row_shape(row: Any, limit: int, faults: Faults) -> bool:
    """An object, not nested beyond all use (more than ``limit`` deep)."""
    if not isinstance(row, dict):
        faults.add("", "wrong_type", f"must be an object, not {json_type(row)}")
    elif _deeper_than(limit, row):
        faults.add("", "too_deep", too_deep(limit))
    else:
        return True
    return False


def check_split(split: Any, faults: Faults) -> None:
    if split is not None and split not in SPLITS:
        faults.add("split", "unknown_split", f"must be one of {', '.join(SPLITS)}")


def to_messages(raw: Sequence[Mapping[str, Any]], spelling: Spelling = OURS) -> list[Message]:
    """Of messages that were checked."""
    return [
        {"role": spelling.roles[message[spelling.role]], "content": message[spelling.content]} for message in raw
    ]


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
