"""Shapes of rows. A new one is a class here and a line in ``registries.DATA_FORMATS``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.core.entities.datasets import Conversation, Message
from app.core.interfaces.components import DataFormat
from app.implementations.data.validation import (
    Faults,
    check_answer,
    check_messages,
    check_text,
    json_type,
    to_messages,
)

TURN = "<|im_start|>"  # how ChatML text begins
_PREFERENCES = frozenset({"chosen", "rejected", "preferred_output", "non_preferred_output"})
_CHATS = frozenset({"messages", "conversations"})
_CONVERSES = _PREFERENCES | _CHATS | {"instruction", "prompt", "completion", "question", "answer"}


class MessagesFormat(DataFormat):
    """``{"messages": [{"role", "content"}, …]}``: what OpenAI's fine-tuning files hold."""

    name = "messages"
    columns = frozenset({"messages"})

    def recognises(self, row: Mapping[str, Any]) -> bool:
        return "messages" in row

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        faults = Faults()
        check_messages(row["messages"], faults)
        faults.raise_any()
        return Conversation(0, to_messages(row["messages"]))


class AlpacaFormat(DataFormat):
    """``{"instruction", "output"}`` with or without ``input`` and ``system`` (Taori et al. 2023, Stanford Alpaca).

    ``input`` follows the instruction after an empty line.
    """

    name = "alpaca"
    columns = frozenset({"instruction", "input", "output", "system"})

    def recognises(self, row: Mapping[str, Any]) -> bool:
        return "instruction" in row and row.keys().isdisjoint(_CHATS)

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        faults = Faults()
        _check_columns(row, ("instruction", "output"), faults)
        given = [key for key in ("input", "system") if row.get(key) not in (None, "")]
        for key in given:
            check_text(key, row[key], faults)
        faults.raise_any()
        question = "\n\n".join([row["instruction"], *([row["input"]] if "input" in given else [])])
        system: list[Message] = [{"role": "system", "content": row["system"]}] if "system" in given else []
        return Conversation(0, [*system, *_exchange(question, row["output"])])


class PromptCompletionFormat(DataFormat):
    """``{"prompt", "completion"}`` or ``{"question", "answer"}``."""

    name = "prompt_completion"
    columns = frozenset({"prompt", "completion", "question", "answer"})

    def recognises(self, row: Mapping[str, Any]) -> bool:
        others = {"instruction"} | _CHATS | _PREFERENCES
        return not self.columns.isdisjoint(row) and row.keys().isdisjoint(others)

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        faults = Faults()
        pairs = (("prompt", "completion"), ("question", "answer"))
        asked, answered = next(pair for pair in pairs if not row.keys().isdisjoint(pair))
        _check_columns(row, (asked, answered), faults)
        faults.raise_any()
        return Conversation(0, _exchange(row[asked], row[answered]))


class PreferenceFormat(DataFormat):
    """``{"prompt", "chosen", "rejected"}`` as TRL has it, each a text or a list of messages.

    A prompt that is a text is the user's; an answer is a text or one message of the assistant.
    """

    name = "preference"
    columns = frozenset({"prompt", "chosen", "rejected"})

    def recognises(self, row: Mapping[str, Any]) -> bool:
        others = {"messages", "instruction", "preferred_output", "non_preferred_output"}
        return not {"chosen", "rejected"}.isdisjoint(row) and row.keys().isdisjoint(others)

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        faults = Faults()
        prompt = row.get("prompt")
        if "prompt" not in row:
            faults.add("prompt", "missing", "is missing")
        elif isinstance(prompt, list):
            check_messages(prompt, faults, "prompt", last="user")
        else:
            check_text("prompt", prompt, faults)
        _check_answers(row, ("chosen", "rejected"), faults)
        faults.raise_any()
        asked: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt or []
        return _preference(asked, row["chosen"], row["rejected"])


class OpenAiPreferenceFormat(DataFormat):
    """``{"input": {"messages": […]}, "preferred_output": […], "non_preferred_output": […]}``, as OpenAI has it.

    Each output is one message of the assistant.
    """

    name = "openai_preference"
    columns = frozenset({"input", "preferred_output", "non_preferred_output"})

    def recognises(self, row: Mapping[str, Any]) -> bool:
        outputs = {"preferred_output", "non_preferred_output"}
        return not outputs.isdisjoint(row) and row.keys().isdisjoint({"messages", "instruction"})

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        faults = Faults()
        given = row.get("input")
        if "input" not in row:
            faults.add("input", "missing", "is missing")
        elif not isinstance(given, dict):
            faults.add("input", "wrong_type", f"must be an object with messages, not {json_type(given)}")
        elif "messages" not in given:
            faults.add("input.messages", "missing", "is missing")
        else:
            check_messages(given["messages"], faults, "input.messages", last="user")
            if given.get("tools") not in (None, []):
                faults.add("input.tools", "not_supported", "is not supported: leave it out")
        _check_answers(row, ("preferred_output", "non_preferred_output"), faults)
        faults.raise_any()
        return _preference(row["input"]["messages"], row["preferred_output"], row["non_preferred_output"])


def is_plain_text(row: Mapping[str, Any]) -> bool:
    return "text" in row and row.keys().isdisjoint(_CONVERSES | {"label"})


def is_chatml(text: Any) -> bool:
    return isinstance(text, str) and text.startswith(TURN)


class TextFormat(DataFormat):
    """``{"text"}``: a plain text to pretrain on."""

    name = "text"
    columns = frozenset({"text"})

    def recognises(self, row: Mapping[str, Any]) -> bool:
        return is_plain_text(row) and not is_chatml(row["text"])

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        faults = Faults()
        check_text("text", row["text"], faults)
        faults.raise_any()
        return Conversation(0, [], text=row["text"])


class LabelledFormat(DataFormat):
    """``{"text", "label"}``: a text to classify. A label is a text or a whole number."""

    name = "labelled"
    columns = frozenset({"text", "label"})

    def recognises(self, row: Mapping[str, Any]) -> bool:
        return self.columns <= row.keys() and row.keys().isdisjoint(_CONVERSES)

    def convert(self, row: Mapping[str, Any]) -> Conversation:
        faults = Faults()
        check_text("text", row["text"], faults)
        if not _is_whole_number(row["label"]):
            check_text("label", row["label"], faults)
        faults.raise_any()
        return Conversation(0, [], text=row["text"], label=str(row["label"]).strip())


def _is_whole_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_columns(row: Mapping[str, Any], columns: Sequence[str], faults: Faults) -> None:
    for column in columns:
        if column in row:
            check_text(column, row[column], faults)
        else:
            faults.add(column, "missing", "is missing")


def _exchange(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _check_answers(row: Mapping[str, Any], columns: tuple[str, str], faults: Faults) -> None:
    for column in columns:
        if column in row:
            check_answer(column, row[column], faults)
        else:
            faults.add(column, "missing", "is missing")
    if not faults and _answer(row[columns[0]]) == _answer(row[columns[1]]):
        faults.add(columns[1], "same_answer", f"is the same as {columns[0]}: there is nothing to prefer")


def _preference(prompt: Sequence[Mapping[str, Any]], chosen: Any, rejected: Any) -> Conversation:
    return Conversation(0, [*to_messages(prompt), _answer(chosen)], rejected=_answer(rejected))


def _answer(value: Any) -> Message:
    return {"role": "assistant", "content": value if isinstance(value, str) else value[0]["content"]}
