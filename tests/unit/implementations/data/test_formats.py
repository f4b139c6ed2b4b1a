"""Every fault of a row at once, with its place."""

from typing import Any

import pytest

from app.core.entities.datasets import Conversation
from app.core.errors import Invalid
from app.core.interfaces.components import DataFormat
from app.implementations.data.formats import (
    AlpacaFormat,
    LabelledFormat,
    MessagesFormat,
    OpenAiPreferenceFormat,
    PreferenceFormat,
    PromptCompletionFormat,
    TextFormat,
)
from app.implementations.data.validation import MAX_COUNTED, MAX_FAULTS

USER = {"role": "user", "content": "q"}
ASSISTANT = {"role": "assistant", "content": "a"}
SYSTEM = {"role": "system", "content": "s"}
WORSE = {"role": "assistant", "content": "b"}

PLACES = [("prompt", "empty"), ("chosen", "wrong_type"), ("rejected", "wrong_type")]
NOT_ONE = [("prompt", "empty"), ("chosen", "not_one_answer"), ("rejected", "not_one_answer")]
WRONG_ANSWER = ("rejected[0]", "wrong_type")
UNTAKEN = "not_supported"
TWICE = ("input.messages[1].role", "role_order")


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
    assert form.convert(row) == Conversation(0, expected)
    assert form.columns & row.keys()


@pytest.mark.parametrize(
    ("form", "row", "prompt"),
    [
        (PreferenceFormat(), {"prompt": "q", "chosen": "a", "rejected": "b"}, [USER]),
        (PreferenceFormat(), {"prompt": [SYSTEM, USER], "chosen": [ASSISTANT], "rejected": "b"}, [SYSTEM, USER]),
        (PreferenceFormat(), {"prompt": [USER], "chosen": "a", "rejected": [WORSE], "score": 2}, [USER]),
        (
            OpenAiPreferenceFormat(),
            {
                "input": {"messages": [USER, ASSISTANT, USER], "tools": [], "parallel_tool_calls": True},
                "preferred_output": [ASSISTANT],
                "non_preferred_output": [WORSE],
            },
            [USER, ASSISTANT, USER],
        ),
    ],
)
def test_a_sound_preference(form: DataFormat, row: dict[str, Any], prompt: list[dict[str, str]]) -> None:
    assert form.recognises(row)
    assert form.convert(row) == Conversation(0, [*prompt, ASSISTANT], rejected=WORSE)


def test_a_sound_text() -> None:
    assert TextFormat().convert({"text": " Once.\n"}) == Conversation(0, [], text=" Once.\n")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"chosen": "a"}, [("prompt", "missing"), ("rejected", "missing")]),
        ({"prompt": "", "chosen": 1, "rejected": None}, PLACES),
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, [("rejected", "same_answer")]),
        ({"prompt": "q", "chosen": [ASSISTANT], "rejected": "a"}, [("rejected", "same_answer")]),
        ({"prompt": [USER, ASSISTANT], "chosen": "a", "rejected": "b"}, [("prompt", "no_question")]),
        ({"prompt": [SYSTEM], "chosen": "a", "rejected": "b"}, [("prompt", "no_question")]),
        ({"prompt": [ASSISTANT, USER], "chosen": "a", "rejected": "b"}, [("prompt[0].role", "role_order")]),
        ({"prompt": [{"role": "user"}], "chosen": "a", "rejected": "b"}, [("prompt[0].content", "missing")]),
        ({"prompt": [], "chosen": [], "rejected": [ASSISTANT] * 2}, NOT_ONE),
        ({"prompt": "q", "chosen": [USER], "rejected": [3]}, [("chosen[0].role", "role_order"), WRONG_ANSWER]),
        (
            {"prompt": "q", "chosen": [{**ASSISTANT, "weight": 0}], "rejected": "b"},
            [("chosen[0].weight", UNTAKEN)],
        ),
    ],
)
def test_faulty_preferences(row: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert faults_of(PreferenceFormat(), row) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [("input", "missing")]),
        ({"input": [USER]}, [("input", "wrong_type")]),
        ({"input": {}}, [("input.messages", "missing")]),
        ({"input": {"messages": "q"}}, [("input.messages", "wrong_type")]),
        ({"input": {"messages": [USER, {"role": "user"}]}}, [("input.messages[1].content", "missing"), TWICE]),
        ({"input": {"messages": [USER], "tools": [{}]}}, [("input.tools", "not_supported")]),
        ({"input": {"messages": [USER]}, "preferred_output": 5}, [("preferred_output", "wrong_type")]),
        ({"input": {"messages": [USER]}, "preferred_output": [WORSE]}, [("non_preferred_output", "same_answer")]),
    ],
)
def test_faulty_openai_preferences(given: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    row = {"preferred_output": [ASSISTANT], "non_preferred_output": [WORSE], **given}
    assert faults_of(OpenAiPreferenceFormat(), row) == expected


@pytest.mark.parametrize(
    ("text", "code"), [(None, "wrong_type"), ([], "wrong_type"), (" ", "empty"), ("a\0", "invalid_text")]
)
def test_faulty_texts(text: Any, code: str) -> None:
    assert faults_of(TextFormat(), {"text": text}) == [("text", code)]


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
    forms: list[DataFormat] = [
        *(AlpacaFormat(), MessagesFormat(), PromptCompletionFormat()),
        *(PreferenceFormat(), OpenAiPreferenceFormat(), TextFormat(), LabelledFormat()),
    ]
    everything: dict[str, Any] = dict.fromkeys(sorted(set.union(*[set(form.columns) for form in forms])), "")
    for form in forms:
        assert sum(other.recognises(dict.fromkeys(form.columns, "")) for other in forms) == 1
    assert [type(form) for form in forms if form.recognises(everything)] == [MessagesFormat]
    for columns in (("prompt", "chosen"), ("prompt", "rejected"), ("preferred_output",), ("text", "id")):
        assert sum(form.recognises(dict.fromkeys(columns, "")) for form in forms) == 1
    assert not any(form.recognises({"label": "y", "id": 1}) for form in forms)


@pytest.mark.parametrize(("count", "says"), [(150, "50 more"), (MAX_COUNTED + 5, "at least")])
def test_a_hundred_faults_are_listed_and_the_rest_counted(count: int, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        MessagesFormat().convert({"messages": [1] * count})
    assert len(caught.value.faults) == MAX_FAULTS + 1
    assert says in caught.value.faults[-1].message


@pytest.mark.parametrize(
    ("given", "label"), [("good", "good"), (" good\n", "good"), (3, "3"), (0, "0"), (-1, "-1")]
)
def test_a_label_is_a_text_in_the_end(given: Any, label: str) -> None:
    assert LabelledFormat().convert({"text": "q", "label": given}) == Conversation(0, [], text="q", label=label)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": " ", "label": None}, [("text", "empty"), ("label", "wrong_type")]),
        ({"text": 5, "label": True}, [("text", "wrong_type"), ("label", "wrong_type")]),
        ({"text": "q\0", "label": 1.5}, [("text", "invalid_text"), ("label", "wrong_type")]),
        ({"text": "q", "label": ["a"]}, [("label", "wrong_type")]),
        ({"text": "q", "label": ""}, [("label", "empty")]),
    ],
)
def test_faults_of_labelled_rows(row: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert faults_of(LabelledFormat(), row) == expected


@pytest.mark.parametrize("more", [{"messages": []}, {"instruction": "q"}, {"prompt": "q"}, {"question": "q"}])
def test_a_conversation_with_columns_text_and_label_stays_one(more: dict[str, Any]) -> None:
    assert not LabelledFormat().recognises({"text": "q", "label": "good", **more})
