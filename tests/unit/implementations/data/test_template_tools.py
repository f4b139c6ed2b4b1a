"""Tools in prompts: shown as the family's template has them, guarded, or refused where it has none."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from app.core.errors import Invalid
from app.implementations.data.template_tools import CALL, QUESTION, RESULT, TOOL
from app.implementations.data.tokenization import FolderChatTokenizer
from tests.chat_families import FAMILIES, write_family

KNOWING = ("qwen2.5", "qwen3")
TAGS = ("<tool_call>", "</tool_call>")


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], FolderChatTokenizer]:
    """The tiny tokenizer of a family, with the tags of tools as tokens, as those of Qwen have them."""

    @cache
    def load(name: str) -> FolderChatTokenizer:
        folder = tmp_path_factory.mktemp(name)
        write_family(next(family for family in FAMILIES if family.name == name), folder)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
        tokenizer.save(str(folder / "tokenizer.json"))
        return FolderChatTokenizer(folder)

    return load


def whole(tokenizer: FolderChatTokenizer, ids: list[int]) -> str:
    return str(tokenizer._tokenizer.decode(ids, skip_special_tokens=False))


@pytest.mark.parametrize("name", KNOWING)
def test_a_tool_its_call_and_its_result_are_rendered(load, name: str) -> None:
    tokenizer = load(name)
    prompt = whole(tokenizer, tokenizer.encode_prompt([QUESTION, CALL, RESULT], [TOOL]))
    assert json.dumps(TOOL) in prompt
    assert '<tool_call>\n{"name": "look_up_parcel", "arguments": {"number": "7"}}\n</tool_call>' in prompt
    assert "<tool_response>\nIn Ulm.\n</tool_response>" in prompt
    assert prompt.endswith("<|im_start|>assistant\n")
    assert tokenizer.tool_format.name == "hermes"


@pytest.mark.parametrize("name", sorted({family.name for family in FAMILIES} - {*KNOWING}))
def test_a_template_that_knows_no_tools_is_shown_none(load, name: str) -> None:
    tokenizer = load(name)
    assert tokenizer.tool_format is None
    for tools, messages, where in (
        ([TOOL], [QUESTION], ["tools"]),
        ([], [QUESTION, CALL, RESULT], ["messages.1", "messages.2"]),
        ([TOOL], [QUESTION, CALL], ["tools", "messages.1"]),
    ):
        with pytest.raises(Invalid) as caught:
            tokenizer.encode_prompt(messages, tools)
        assert caught.value.code == "tools_not_supported"
        assert [fault.where for fault in caught.value.faults] == where


SPELT = st.sampled_from(["<|im_end|>\n<|im_start|>system\n", "<|endoftext|>", *TAGS, "é", '"', "\\", " ", "a"])
WILD = st.lists(SPELT, max_size=4).map("".join)


@settings(max_examples=25, deadline=None)
@given(name=WILD, about=WILD, key=WILD, value=WILD, result=WILD)
def test_what_a_tool_spells_is_plain_text(load, name: str, about: str, key: str, value: str, result: str) -> None:
    tokenizer = load("qwen2.5")

    def prompt(name: str, about: str, key: str, value: str, result: str) -> list[int]:
        parameters = {"type": "object", "properties": {key: {"enum": [value]}}}
        tool = {"type": "function", "function": {"name": name, "description": about, "parameters": parameters}}
        call = {"id": "c", "type": "function", "function": {"name": name, "arguments": {key: [value]}}}
        called = {"role": "assistant", "content": "", "tool_calls": [call]}
        answered = {"role": "tool", "content": result, "tool_call_id": "c"}
        return tokenizer.encode_prompt([QUESTION, called, answered], [tool])

    added = tokenizer._tokenizer.get_added_tokens_decoder().keys()
    wild, tame = prompt(name, about, key, value, result), prompt("a", "a", "a", "a", "a")
    assert [i for i in wild if i in added] == [i for i in tame if i in added]
    text = whole(tokenizer, wild)
    assert json.dumps({"enum": [value]}, ensure_ascii=False) in text
    assert f"<tool_response>\n{result}\n</tool_response>" in text


def test_thoughts_are_dropped_and_calls_stay(load, tmp_path: Path) -> None:
    family = next(family for family in FAMILIES if family.name == "qwen2.5")
    write_family(family, tmp_path)
    dropping = FolderChatTokenizer(tmp_path, "drop")
    thought = {**CALL, "content": "<think>hm</think>I look."}
    prompt = whole(dropping, dropping.encode_prompt([QUESTION, thought, RESULT], [TOOL]))
    assert "hm" not in prompt
    assert 'I look.\n<tool_call>\n{"name": "look_up_parcel"' in prompt
