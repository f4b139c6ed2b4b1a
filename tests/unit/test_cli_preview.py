"""A row, token by token, as a terminal shows it."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.cli.preview import render_preview
from app.core.entities.datasets import Conversation, Message
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import ChatTokenizer
from app.core.services.data.preview import preview
from app.implementations.data.encoder_tokenizer import load_tokenizer
from app.implementations.models.random_model import write_random_tokenizer

QUESTION: Message = {"role": "user", "content": "When do you open?"}
CHAT = Conversation(8, [QUESTION, {"role": "assistant", "content": "At nine."}])
ANSI = re.compile(r"\033\[[0-9;]*m")
HOSTILE = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_random_tokenizer("llama", folder)
    return load_tokenizer(folder)


def config(max_length: int = 1000, **keys: str) -> TrainingConfig:
    return TrainingConfig.model_validate({"objective": "sft", "max_length": max_length, **keys})


def test_the_head_names_what_becomes_of_reasoning(chatml: ChatTokenizer) -> None:
    assert "reasoning: drop" in render_preview(preview(CHAT, chatml, config(reasoning="drop")), colour=False)


def test_a_character_of_several_tokens_stands_with_the_last_of_them(chatml: ChatTokenizer) -> None:
    row = Conversation(1, [QUESTION, {"role": "assistant", "content": "👨‍👩‍👧"}])
    assert "‥|‥|‥|👨" in render_preview(preview(row, chatml, config()), colour=False)


def test_brackets(chatml: ChatTokenizer) -> None:
    length = len(chatml.encode_prompt([QUESTION])) + 2
    text = render_preview(preview(CHAT, chatml, config(max_length=length)), colour=False)
    head, legend, _, *lines = text.splitlines()
    assert head == "row 8 · sft · reasoning: keep"
    assert re.fullmatch(r"\[trained 2\]  masked \d+  \{truncated \d+\}  dropped 1  of \d+ tokens", legend)
    assert lines[0].startswith("<|im_start|>|")
    assert lines[0].endswith("⏎")
    assert re.search(r"\[.+\|.+\]\{.*<\|im_end\|>\}$", lines[-1])


def test_colours_change_nothing_but_the_colours(chatml: ChatTokenizer) -> None:
    found = preview(CHAT, chatml, config())
    text = render_preview(found, colour=True)
    assert "\033[30;42m" in text
    assert "".join(token.text for token in found.sequences[0].tokens).replace(" ", "·").replace("\n", "⏎\n") in (
        ANSI.sub("", text)
    )
    assert all(line.endswith("\033[0m") for line in text.splitlines() if "\033" in line and "tokens" not in line)


@settings(max_examples=50)
@given(text=HOSTILE, colour=st.booleans())
def test_no_text_reaches_the_terminals_controls(chatml: ChatTokenizer, text: str, colour: bool) -> None:
    row = Conversation(1, [{"role": "user", "content": text}, {"role": "assistant", "content": text}], label=None)
    shown = (
        ANSI.sub("", render_preview(preview(row, chatml, config()), colour=colour))
        if colour
        else (render_preview(preview(row, chatml, config()), colour=False))
    )
    assert all(character.isprintable() or character in "\n\u200d" for character in shown)


def test_an_escape_is_written_out(chatml: ChatTokenizer) -> None:
    row = Conversation(1, [QUESTION, {"role": "assistant", "content": "\033[2Ja\u202eb"}])
    found = preview(row, chatml, config())
    shown = render_preview(found, colour=False).replace("|", "")
    assert "<U+001B>[2J" in shown
    assert "<U+202E>" in shown
