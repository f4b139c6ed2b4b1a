"""Thoughts: what a model says between ``<think>`` and ``</think>`` before it answers."""

from collections.abc import Sequence
from typing import Literal

from app.core.entities.datasets import Message

Reasoning = Literal["keep", "drop"]
THINK, END_THINK = "<think>", "</think>"


def without_thoughts(messages: Sequence[Message]) -> list[Message]:
    """As if the assistant had answered at once. A thought may lack its ``<think>``, where the prompt has it."""
    return [without_thought(message) for message in messages]


def without_thought(message: Message) -> Message:
    _, closed, answer = message["content"].partition(END_THINK)
    if message["role"] != "assistant" or not closed:
        return message
    return {**message, "content": answer.lstrip()}


def split_reasoning(text: str, opened: bool) -> tuple[str | None, str]:
    """(reasoning, answer) of generated text; ``opened``: the prompt ends with ``<think>``.

    ``(None, text)`` where the model does not think aloud; an unfinished thought has the answer ``""``.
    """
    if not opened and not text.lstrip().startswith(THINK):
        return None, text
    reasoning, _, answer = text.lstrip().removeprefix(THINK).partition(END_THINK)
    return reasoning.strip(), answer.strip()


class ReasoningStream:
    """``split_reasoning`` of a text that comes in pieces, cut anywhere. What it gives, joined, is the same."""

    def __init__(self, opened: bool) -> None:
        self._opened = opened
        self._part: Literal["start", "reasoning", "answer", "plain"] = "start"
        self._held = ""  # may yet turn out to be a tag
        self._reasoning, self._answer = _Trimmed(), _Trimmed()

    def push(self, text: str) -> tuple[str, str]:
        """What is new of the reasoning and of the answer."""
        self._held += text
        if self._part == "start" and not self._begin():
            return "", ""
        reasoning = self._think() if self._part == "reasoning" else ""
        if self._part == "reasoning":
            return reasoning, ""
        said, self._held = self._held, ""
        return reasoning, said if self._part == "plain" else self._answer.push(said)

    def finish(self) -> tuple[str, str]:
        """What was held back."""
        held, self._held = self._held, ""
        if self._opened or self._part == "reasoning":
            return self._reasoning.push(held), ""
        return "", held

    def _begin(self) -> bool:
        """Whether it is clear by now if the model thinks."""
        start = self._held.lstrip()
        if len(start) < len(THINK) and THINK.startswith(start):
            return False
        thinks = self._opened or start.startswith(THINK)
        self._part = "reasoning" if thinks else "plain"
        if thinks:
            self._held = start.removeprefix(THINK)
        return True

    def _think(self) -> str:
        thought, closed, after = self._held.partition(END_THINK)
        if closed:
            self._part, self._held = "answer", after
        else:
            cut = len(thought) - overlap(thought, END_THINK)
            thought, self._held = thought[:cut], thought[cut:]
        return self._reasoning.push(thought)


class _Trimmed:
    """Text in pieces, without the white space around the whole."""

    def __init__(self) -> None:
        self._begun = False
        self._space = ""  # after what was given

    def push(self, text: str) -> str:
        text = self._space + text if self._begun else text.lstrip()
        given = text.rstrip()
        self._begun = self._begun or bool(given)
        self._space = text[len(given) :]
        return given


def overlap(text: str, tag: str) -> int:
    """Characters at the end that may be the beginning of ``tag``."""
    longest = min(len(text), len(tag) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(tag[:size])), 0)
