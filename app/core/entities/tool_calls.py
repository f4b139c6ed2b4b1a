"""Tools: functions that a caller offers, and a model's calls of them, told from the rest of what it says."""

import json
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.core.entities.reasoning import overlap

Tool = Mapping[str, Any]  # {"type": "function", "function": {"name", "description", "parameters"}}


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: str  # a JSON object
    id: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}", compare=False)


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How a family of models writes a call: ``read`` makes one of what stands between the tags, or None."""

    name: str
    opening: str
    closing: str
    begins: str  # what stands first between the tags
    read: Callable[[str], ToolCall | None]


def _read_json(written: str) -> ToolCall | None:
    try:
        call = json.loads(written)
        name, arguments = call["name"], call["arguments"]
        text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        text.encode()  # half a surrogate pair is no text
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return ToolCall(name, text) if isinstance(name, str) and isinstance(arguments, dict) else None


TOOL_FORMATS: Sequence[ToolFormat] = (
    ToolFormat("hermes", "<tool_call>", "</tool_call>", "{", _read_json),  # Hermes, Qwen2.5, Qwen3
)


class ToolCallStream:
    """Calls of the tools of these names, told from the rest of a text that comes in pieces, cut anywhere.

    What is no whole call of one of them stays text. White space around the text goes where there are calls, for it
    stands between these. What it gives, joined, does not depend on the cuts.
    """

    def __init__(self, form: ToolFormat, names: Collection[str]) -> None:
        self.made = False  # a call
        self._form = form
        self._names = names
        self._held = ""  # may yet turn out to be a tag, or is what stands after an opening one
        self._inside = False
        self._space = ""  # after what was given
        self._said = False

    def push(self, text: str) -> tuple[str, list[ToolCall]]:
        """What is new of the text, and the calls that are whole by now."""
        self._held += text
        said = ""
        calls: list[ToolCall] = []
        while True:
            if not self._inside:
                said += self._outside()
                if not self._inside:
                    return said, calls
            written, closed, after = self._held.partition(self._form.closing)
            if not closed and self._may_be_call(written):
                return said, calls
            self._inside = False
            call = self._form.read(written) if closed else None
            if call and call.name in self._names:
                self.made = True
                self._held = after
                calls.append(call)
            else:
                said += self._say(self._form.opening)

    def finish(self) -> str:
        """What was held back: no call."""
        held, self._held = self._held, ""
        said = self._say(self._form.opening + held if self._inside else held)
        return said if self.made else said + self._space

    def _outside(self) -> str:
        """What is said before the next opening tag, as far as that is clear."""
        before, opened, after = self._held.partition(self._form.opening)
        if opened:
            self._inside, self._held = True, after
        else:
            cut = len(before) - overlap(before, self._form.opening)
            before, self._held = before[:cut], before[cut:]
        return self._say(before)

    def _may_be_call(self, written: str) -> bool:
        start = written.lstrip()[: len(self._form.begins)]
        return self._form.begins.startswith(start)

    def _say(self, text: str) -> str:
        text = self._space + text
        said = text.rstrip()
        self._space = text[len(said) :]
        if self.made and not self._said:
            said = said.lstrip()
        self._said = self._said or bool(said)
        return said


def split_tool_calls(text: str, stream: ToolCallStream) -> tuple[str, list[ToolCall]]:
    """(text without the calls, calls) of a whole text; ``stream`` is a new one."""
    said, calls = stream.push(text)
    return said + stream.finish(), calls
