"""Shapes of rows. A new one is a class here and a line in ``bootstrap.DATA_FORMATS``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.core.entities.datasets import Message
from app.core.interfaces.components import DataFormat
from app.implementations.data.validation import Faults, check_messages, check_text, to_messages


class MessagesFormat(DataFormat):
    """``{"messages": [{"role", "content"}, …]}``: what OpenAI's fine-tuning files hold."""

    columns = frozenset({"messages"})

    def recognises(self, row: Mapping[str, Any]) -> bool:
        return "messages" in row

    def convert(self, row: Mapping[str, Any]) -> Sequence[Message]:
        faults = Faults()
        check_messages(row["messages"], faults)
        faults.raise_any()
        return to_messages(row["messages"])


class AlpacaFormat(DataFormat):
    """``{"instruction", "output"}`` with or without ``input`` and ``system`` (Taori et al. 2023, Stanford Alpaca).

    ``input`` follows the instruction after an empty line.
    """

    columns = frozenset({"instruction", "input", "output", "system"})

    def recognises(self, row: Mapping[str, Any]) -> bool:
        return "instruction" in row and "messages" not in row

    def convert(self, row: Mapping[str, Any]) -> Sequence[Message]:
        faults = Faults()
        _check_columns(row, ("instruction", "output"), faults)
        given = [key for key in ("input", "system") if row.get(key) not in (None, "")]
        for key in given:
            check_text(key, row[key], faults)
        faults.raise_any()
        question = "\n\n".join([row["instruction"], *([row["input"]] if "input" in given else [])])
        system: list[Message] = [{"role": "system", "content": row["system"]}] if "system" in given else []
        return [*system, *_exchange(question, row["output"])]


class PromptCompletionFormat(DataFormat):
    """``{"prompt", "completion"}`` or ``{"question", "answer"}``."""

    columns = frozenset({"prompt", "completion", "question", "answer"})

    def recognises(self, row: Mapping[str, Any]) -> bool:
        return not self.columns.isdisjoint(row) and row.keys().isdisjoint({"messages", "instruction"})

    def convert(self, row: Mapping[str, Any]) -> Sequence[Message]:
        faults = Faults()
        pairs = (("prompt", "completion"), ("question", "answer"))
        asked, answered = next(pair for pair in pairs if not row.keys().isdisjoint(pair))
        _check_columns(row, (asked, answered), faults)
        faults.raise_any()
        return _exchange(row[asked], row[answered])


def _check_columns(row: Mapping[str, Any], columns: Sequence[str], faults: Faults) -> None:
    for column in columns:
        if column in row:
            check_text(column, row[column], faults)
        else:
            faults.add(column, "missing", "is missing")


def _exchange(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
