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
    return {"role": "assistant", "content": answer.lstrip()}
