import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from app.implementations.models.random_model import write_random_tokenizer
from app.implementations.serving.detokenizer import StreamDetokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return write_random_tokenizer("llama", tmp_path_factory.mktemp("tokenizer"))


def streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    stream = StreamDetokenizer(tokenizer)
    return [*(stream.push([i]) for i in ids), stream.finish()]


@settings(deadline=None)
@given(st.text())
@example("naïve 中文 😀 👩‍👩‍👧 é")
@example("\ufffd a replacement character that was meant \ufffd.")
def test_the_pieces_join_to_the_text_and_none_holds_part_of_a_character(tokenizer: Tokenizer, text: str) -> None:
    pieces = streamed(tokenizer, tokenizer.encode(text).ids)
    joined = "".join(pieces)
    assert text.startswith(joined)
    assert set(text[len(joined) :]) <= {"\ufffd"}
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


@settings(deadline=None)
@given(st.lists(st.integers(0, 600)))
def test_any_ids_come_out_as_the_tokenizer_has_them(tokenizer: Tokenizer, ids: list[int]) -> None:
    """Also bytes that make no character, special tokens, and ids that the model has and the tokenizer has not."""
    whole = tokenizer.decode(ids, skip_special_tokens=True)
    assert "".join(streamed(tokenizer, ids)).rstrip("\ufffd") == whole.rstrip("\ufffd")


def test_text_comes_as_soon_as_it_is_certain(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("中a").ids
    assert len(ids) == 4  # three bytes and a letter
    assert streamed(tokenizer, ids) == ["", "", "中", "a", ""]


def test_a_character_that_is_never_finished_is_left_out(tokenizer: Tokenizer) -> None:
    assert "".join(streamed(tokenizer, tokenizer.encode("a中").ids[:-1])) == "a"


def test_several_tokens_at_once_are_the_same_as_one_by_one(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("Hello 中文 world").ids
    stream = StreamDetokenizer(tokenizer)
    assert stream.push(ids[:5]) + stream.push(ids[5:]) + stream.finish() == "Hello 中文 world"
