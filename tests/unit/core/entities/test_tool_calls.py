"""Calls told from the rest while they stream, however the text is cut, and what is no call."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.core.entities.tool_calls import TOOL_FORMATS, ToolCall, ToolCallStream, split_tool_calls

[HERMES] = TOOL_FORMATS
NAMES = {"order", "weather"}
CALL = '<tool_call>\n{"name": "order", "arguments": {"id": 7}}\n</tool_call>'
PARTS = [
    *(CALL, '{"name": "weather", "arguments": {}}', '{"name": "other", "arguments": {}}', "<tool_call>"),
    *("</tool_call>", "<tool", "_call>", "</", "<", "{", '"', " ", "\n", "well", "é👍"),
]
TEXTS = st.lists(st.sampled_from(PARTS), max_size=10).map("".join)


def split(text):
    return split_tool_calls(text, ToolCallStream(HERMES, NAMES))


def streamed(pieces):
    stream = ToolCallStream(HERMES, NAMES)
    said, calls = "", []
    for piece in pieces:
        more, new = stream.push(piece)
        said, calls = said + more, calls + new
    return said + stream.finish(), calls


@given(text=TEXTS, data=st.data())
@example(text=f"a {CALL}\n{CALL} b ", data=None)
def test_however_it_is_cut_it_is_what_the_whole_text_gives(text, data):
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text))))) if data else []
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert streamed(pieces) == split(text)
    assert streamed(list(text)) == split(text)


@given(parts=st.lists(st.sampled_from([CALL, "well", " ", "<", "</tool_call>", "{}"]), max_size=10))
def test_nothing_is_lost(parts):
    said, calls = split("".join(parts))
    words = "".join(part for part in parts if part != CALL)
    assert len(calls) == parts.count(CALL)
    assert said.split() == words.split() if not calls else "".join(said.split()) == "".join(words.split())


ORDER = ToolCall("order", '{"id": 7}')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CALL, ("", [ORDER])),
        (f"\nLet me look.\n{CALL}\n{CALL}\n", ("\nLet me look.", [ORDER, ORDER])),
        (f"{CALL}\n\nso: ", ("so:", [ORDER])),
        (f"a {CALL} b", ("a  b", [ORDER])),
        (f"<tool_call>{CALL}", ("<tool_call>", [ORDER])),
        (f'<tool_call>{{"name": {CALL}', ('<tool_call>{"name":', [ORDER])),
        (CALL.replace("7", '"é\\u00e9\\""'), ("", [ToolCall("order", '{"id": "éé\\""}')])),
    ],
)
def test_calls(text, expected):
    assert split(text) == expected
    assert all(call.id.startswith("call_") for call in split(text)[1])


@pytest.mark.parametrize(
    "inside",
    [
        "",
        "[]",
        "7",
        "null",
        "order(7)",
        '{"name": "order"}',
        '{"name": "order", "arguments": "{}"}',
        '{"name": "order", "arguments": {"id": NaN}}',
        '{"name": "order", "arguments": {"id": 1e999}}',
        '{"name": "order", "arguments": {"id": "\\ud800"}}',
        '{"name": "order", "arguments": {}',
        '{"name": "other", "arguments": {}}',
        '{"name": ["order"], "arguments": {}}',
        '{"name": "order", "arguments": {}} {}',
        '{"name": "order", "arguments": ' + '{"a":' * 100_000,
        '{"name": "order", "arguments": {"id": ' + "1" * 5000 + "}}",
    ],
)
def test_what_is_no_whole_call_of_a_tool_stays_text(inside):
    text = f" <tool_call>{inside}</tool_call>\n"
    assert split(text) == (text, [])
    assert split(text.removesuffix("</tool_call>\n")) == (text.removesuffix("</tool_call>\n"), [])


def test_nothing_is_held_back_that_is_clear():
    stream = ToolCallStream(HERMES, NAMES)
    pieces = ["a", " <", "b", "<tool_call", ">\n", "x", '<tool_call>{"name"', ": 1}", "</tool_call>", "."]
    given = [stream.push(piece)[0] for piece in pieces]
    assert given == ["a", "", " <b", "", "", "<tool_call>\nx", "", "", '<tool_call>{"name": 1}</tool_call>', "."]
