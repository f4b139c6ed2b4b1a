"""Every fault of a row at once, with its place."""

from typing import Any

import pytest

from app.core.errors import Invalid
from app.core.interfaces.components import DataFormat
from app.implementations.data.formats import AlpacaFormat, MessagesFormat, PromptCompletionFormat
from app.implementations.data.validation import MAX_COUNTED, MAX_FAULTS

USER = {"role": "user", "content": "q"}
ASSISTANT = {"role": "assistant", "content": "a"}
SYSTEM = {"role": "system", "content": "s"}


def faults_of(form: DataFormat, row: dict[str, Any]) -> list[tuple[str, str]]:
    assert form.recognises(row)
    with pytest.raises(Invalid) as caught:
        form.convert(row)
    return [(fault.where, fault.code) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("form", "row", "expected"),
    [
        (MessagesFormat(), {"messages": [SYSTEM, USER, ASSISTANT]}, [SYSTEM, USER, ASSISTANT]),
        (MessagesFormat(), {"messages": [{**USER, "name": "x"}, {**ASSISTANT, "weight": 1}]}, [USER, ASSISTANT]),
        (AlpacaFormat(), {"instruction": "q", "input": "", "output": "a"}, [USER, ASSISTANT]),
        (
            AlpacaFormat(),
            {"instruction": "Translate.", "input": "Hund", "output": "a", "system": "s"},
            [SYSTEM, {"role": "user", "content": "Translate.\n\nHund"}, ASSISTANT],
        ),
        (PromptCompletionFormat(), {"prompt": "q", "completion": "a"}, [USER, ASSISTANT]),
        (PromptCompletionFormat(), {"question": "q", "answer": "a"}, [USER, ASSISTANT]),
    ],
)
def test_a_sound_row(form: DataFormat, row: dict[str, Any], expected: list[dict[str, str]]) -> None:
    assert form.recognises(row)
    assert form.convert(row) == expected
    assert form.columns & row.keys()


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ("hello", [("messages", "wrong_type")]),
        ([], [("messages", "empty")]),
        ([USER], [("messages", "no_answer")]),
        ([SYSTEM, ASSISTANT], [("messages[1].role", "role_order")]),
        ([USER, USER, ASSISTANT], [("messages[1].role", "role_order")]),
        ([USER, SYSTEM, ASSISTANT, USER], [("messages[1].role", "role_order"), ("messages", "no_answer")]),
        ([USER, {"role": "bot", "content": "a"}], [("messages[1].role", "unknown_role")]),
        ([USER, {"role": ["user"], "content": "a"}], [("messages[1].role", "unknown_role")]),
        ([USER, {"role": "assistant"}], [("messages[1].content", "missing")]),
        ([USER, {"role": "assistant", "content": " \n"}], [("messages[1].content", "empty")]),
        ([USER, {"role": "assistant", "content": "a\0"}], [("messages[1].content", "invalid_text")]),
        ([USER, {"role": "assistant", "content": "\ud800"}], [("messages[1].content", "invalid_text")]),
        ([USER, {**ASSISTANT, "weight": 0}], [("messages[1].weight", "not_supported")]),
        ([USER, {**ASSISTANT, "tool_calls": [{}]}], [("messages[1].tool_calls", "not_supported")]),
        (
            [3, {"content": None}, {"role": "bot"}],
            [
                ("messages[0]", "wrong_type"),
                ("messages[1].role", "missing"),
                ("messages[1].content", "wrong_type"),
                ("messages[2].role", "unknown_role"),
                ("messages[2].content", "missing"),
            ],
        ),
    ],
)
def test_faulty_messages(messages: Any, expected: list[tuple[str, str]]) -> None:
    assert faults_of(MessagesFormat(), {"messages": messages}) == expected


@pytest.mark.parametrize(
    ("form", "row", "expected"),
    [
        (AlpacaFormat(), {"instruction": "q"}, [("output", "missing")]),
        (
            AlpacaFormat(),
            {"instruction": 1, "input": 2, "output": "", "system": []},
            [
                ("instruction", "wrong_type"),
                ("output", "empty"),
                ("input", "wrong_type"),
                ("system", "wrong_type"),
            ],
        ),
        (PromptCompletionFormat(), {"question": "q"}, [("answer", "missing")]),
        (PromptCompletionFormat(), {"completion": "a", "prompt": None}, [("prompt", "wrong_type")]),
        (PromptCompletionFormat(), {"prompt": "q", "answer": "a"}, [("completion", "missing")]),
    ],
)
def test_faulty_columns(form: DataFormat, row: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert faults_of(form, row) == expected


def test_one_format_recognises_a_row() -> None:
    forms: list[DataFormat] = [AlpacaFormat(), MessagesFormat(), PromptCompletionFormat()]
    everything = {"messages": [], "instruction": "", "prompt": "", "question": ""}
    for form in forms:
        assert sum(other.recognises(dict.fromkeys(form.columns, "")) for other in forms) == 1
    assert [type(form) for form in forms if form.recognises(everything)] == [MessagesFormat]
    assert not any(form.recognises({"text": "x"}) for form in forms)


@pytest.mark.parametrize(("count", "says"), [(150, "50 more"), (MAX_COUNTED + 5, "at least")])
def test_a_hundred_faults_are_listed_and_the_rest_counted(count: int, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        MessagesFormat().convert({"messages": [1] * count})
    assert len(caught.value.faults) == MAX_FAULTS + 1
    assert says in caught.value.faults[-1].message
