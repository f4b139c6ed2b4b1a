"""Reasoning told apart while it streams, against the whole text told apart at once."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.core.entities.reasoning import ReasoningStream, split_reasoning

PARTS = ["<think>", "</think>", "<thi", "nk>", "</", "<", ">", " ", "\n", "\u00a0", "a", "well", "é", "👍"]
TEXTS = st.lists(st.sampled_from(PARTS), max_size=12).map("".join)


def streamed(pieces, opened):
    stream = ReasoningStream(opened)
    said = [stream.push(piece) for piece in pieces] + [stream.finish()]
    return tuple("".join(part) for part in zip(*said, strict=True))


def whole(text, opened):
    reasoning, answer = split_reasoning(text, opened)
    return reasoning or "", answer


@given(text=TEXTS, opened=st.booleans(), data=st.data())
@example(text="", opened=True, data=None)
@example(text=" <thin", opened=False, data=None)
@example(text=" <thin", opened=True, data=None)
def test_however_it_is_cut_it_is_what_the_whole_text_gives(text, opened, data):
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text))))) if data else []
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert streamed(pieces, opened) == whole(text, opened)
    assert streamed(list(text), opened) == whole(text, opened)
    assert streamed([text], opened) == whole(text, opened)


@pytest.mark.parametrize(
    ("opened", "pieces", "expected"),
    [
        (False, ["<th", "ink>hm", "</think>", " 42"], [("", ""), ("hm", ""), ("", ""), ("", "42"), ("", "")]),
        (
            True,
            ["hm <", "/think", ">\n\n4", "2 ", "."],
            [("hm", "")] + [("", s) for s in ("", "4", "2", " .", "")],
        ),
        (True, ["a <", "b"], [("a", ""), (" <b", ""), ("", "")]),
        (False, [" a", " </think> b"], [("", " a"), ("", " </think> b"), ("", "")]),
    ],
)
def test_nothing_is_held_back_that_is_clear(opened, pieces, expected):
    stream = ReasoningStream(opened)
    assert [stream.push(piece) for piece in pieces] + [stream.finish()] == expected
