"""ShareGPT and ChatML become messages."""

from typing import Any

import pytest

from app.core.entities.datasets import Conversation
from app.core.errors import Invalid
from app.core.interfaces.components import DataFormat
from app.implementations.data.chat_formats import ChatMlFormat, ShareGptFormat
from app.implementations.data.formats import TextFormat

SYSTEM, USER, ASSISTANT = (
    {"role": role, "content": content} for role, content in (("system", "s"), ("user", "q"), ("assistant", "a"))
)
HUMAN, GPT = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}
CHAT = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>"


def faults_of(form: DataFormat, row: dict[str, Any]) -> list[tuple[str, str]]:
    assert form.recognises(row)
    with pytest.raises(Invalid) as caught:
        form.convert(row)
    return [(fault.where, fault.code) for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"conversations": [HUMAN, GPT]}, [USER, ASSISTANT]),
        ({"conversations": [{"from": "system", "value": "s"}, HUMAN, GPT]}, [SYSTEM, USER, ASSISTANT]),
        ({"conversations": [HUMAN, GPT], "system": "s", "id": 1}, [SYSTEM, USER, ASSISTANT]),
        ({"conversations": [{"from": "user", "value": "q"}, GPT], "system": ""}, [USER, ASSISTANT]),
    ],
)
def test_sharegpt(row: dict[str, Any], expected: list[dict[str, str]]) -> None:
    assert ShareGptFormat().recognises(row)
    assert ShareGptFormat().convert(row) == Conversation(0, expected)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"conversations": "q"}, [("conversations", "wrong_type")]),
        ({"conversations": [GPT]}, [("conversations[0].from", "role_order")]),
        (
            {"conversations": [HUMAN, {"from": "bot"}]},
            [("conversations[1].from", "unknown_role"), ("conversations[1].value", "missing")],
        ),
        ({"conversations": [HUMAN]}, [("conversations", "no_answer")]),
        (
            {"conversations": [USER, GPT]},
            [("conversations[0].from", "missing"), ("conversations[0].value", "missing")],
        ),
        ({"conversations": [HUMAN, GPT], "system": 5}, [("system", "wrong_type")]),
        (
            {"conversations": [{"from": "system", "value": "s"}, HUMAN, GPT], "system": "s"},
            [("system", "role_order")],
        ),
    ],
)
def test_faulty_sharegpt(row: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert faults_of(ShareGptFormat(), row) == expected


def test_sharegpt_preferences_are_not_taken_for_chats() -> None:
    assert not ShareGptFormat().recognises({"conversations": [HUMAN], "chosen": GPT, "rejected": GPT})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CHAT, [USER, ASSISTANT]),
        (f"<|im_start|>system\ns<|im_end|>{CHAT}\n\n", [SYSTEM, USER, ASSISTANT]),
        (
            "<|im_start|>user\n1 < 2\n\n?<|im_end|>\n<|im_start|>assistant\n yes\n<|im_end|>\n",
            [{"role": "user", "content": "1 < 2\n\n?"}, {"role": "assistant", "content": " yes\n"}],
        ),
    ],
)
def test_chatml(text: str, expected: list[dict[str, str]]) -> None:
    row = {"text": text, "id": 3}
    assert ChatMlFormat().recognises(row)
    assert not TextFormat().recognises(row)
    assert ChatMlFormat().convert(row) == Conversation(0, expected)


@pytest.mark.parametrize("text", ["Once.", f" {CHAT}", f"Say {CHAT}", "", None, 5])
def test_what_does_not_begin_as_chatml_is_a_plain_text(text: Any) -> None:
    assert TextFormat().recognises({"text": text})
    assert not ChatMlFormat().recognises({"text": text})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<|im_start|>user\nq", [("text", "invalid_chatml")]),
        ("<|im_start|>user\nq\n<|im_start|>assistant\na<|im_end|>", [("text", "invalid_chatml")]),
        (f"{CHAT}\nand more", [("text", "invalid_chatml")]),
        (f"{CHAT}\n<|im_start|>assistant\n", [("text", "invalid_chatml")]),
        ("<|im_start|>user\nq<|im_end|>", [("text", "no_answer")]),
        ("<|im_start|>bot\nq<|im_end|>", [("text[0].role", "unknown_role")]),
        ("<|im_start|>user\n <|im_end|><|im_start|>assistant\na<|im_end|>", [("text[0].content", "empty")]),
        ("<|im_start|>user\nq\0<|im_end|>", [("text", "invalid_text")]),
    ],
)
def test_faulty_chatml(text: str, expected: list[tuple[str, str]]) -> None:
    assert faults_of(ChatMlFormat(), {"text": text}) == expected
