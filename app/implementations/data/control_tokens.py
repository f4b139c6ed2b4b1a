"""Control tokens that strangers spell, kept from steering the conversation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from app.core.entities.datasets import Message
from app.core.entities.tool_calls import Tool


def guard(
    control: re.Pattern[str], messages: Sequence[Message], tools: Sequence[Tool]
) -> tuple[Sequence[Message], Sequence[Tool], str | None]:
    """Both with a mark inside each control token that a text in them spells; the rendering is cut at the marks."""
    spelt = list(_strings([messages, tools]))
    if not any(map(control.search, spelt)):
        return messages, tools, None
    mark = next(sign for sign in map(chr, range(0xF0000, 0xFFFFE)) if not any(sign in text for text in spelt))

    def marked(text: str) -> str:
        return control.sub(lambda found: found[0][0] + mark + found[0][1:], text)

    return cast(Sequence[Message], _changed(messages, marked)), _changed(tools, marked), mark


def _strings(value: Any) -> Iterator[str]:
    """All of JSON's strings, the keys of objects among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _strings(item)


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): _changed(item, change) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_changed(item, change) for item in value]
    return value
