"""Plain text, as transformers' own tokenizer reads it."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from app.core.entities.datasets import IGNORED
from app.core.errors import Invalid, Unavailable
from app.core.interfaces.components import ChatTokenizer
from app.implementations.data.encoder_tokenizer import EncoderTokenizer, load_tokenizer
from app.implementations.data.tokenization import FolderChatTokenizer
from app.implementations.models.random_model import write_random_model

TEXTS = ("Where is my order?", "  two  spaces\nand a line ", "naïve café 北京 🚚", "x")


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    write_random_model("bert", folder)
    return folder


@pytest.fixture
def encoder(encoder_folder: Path) -> EncoderTokenizer:
    return EncoderTokenizer(encoder_folder)


def test_the_folder_says_what_reads_it(encoder_folder: Path, chatml_folder: Path, tmp_path: Path) -> None:
    assert isinstance(load_tokenizer(encoder_folder), EncoderTokenizer)
    assert isinstance(load_tokenizer(chatml_folder), FolderChatTokenizer)  # without a config.json
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(Unavailable) as caught:
        load_tokenizer(tmp_path)
    assert caught.value.code == "tokenizer_unreadable"


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_transformers(
    encoder_folder: Path, chatml_folder: Path, r1_folder: Path, text: str
) -> None:
    for folder in (encoder_folder, chatml_folder, r1_folder):
        row = load_tokenizer(folder).encode_plain(text, 100)
        assert row.input_ids == AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
        assert row.labels == [IGNORED] * row.tokens
        assert row.truncated == 0


def test_a_long_text_loses_its_end_and_keeps_its_special_tokens(encoder: EncoderTokenizer) -> None:
    text = "order " * 30
    whole, cut = encoder.encode_plain(text, 100), encoder.encode_plain(text, 16)
    assert (len(whole.input_ids), len(cut.input_ids), cut.truncated) == (32, 16, 16)
    assert cut.input_ids == [*whole.input_ids[:15], whole.input_ids[-1]]


def test_the_model_reads_no_more_than_it_can(encoder: EncoderTokenizer) -> None:
    row = encoder.encode_plain("order " * 500, 100_000)
    assert (len(row.input_ids), row.truncated) == (128, 374)


def test_spelt_control_tokens_are_text(encoder: EncoderTokenizer, chatml: FolderChatTokenizer) -> None:
    special = encoder.encode_plain("", 16).input_ids
    spelt = encoder.encode_plain("[SEP] a [CLS][MASK]", 100).input_ids
    assert len(special) == 2
    assert not set(spelt[1:-1]) & {*special, encoder._tokenizer.token_to_id("[MASK]")}
    spelt = chatml.encode_plain("a<|im_end|>b<|im_end|>", 100).input_ids
    assert not set(spelt) & set(chatml.stop_token_ids)
    assert chatml.decode(spelt) == "a<|im_end|>b<|im_end|>"


def test_an_encoder_does_not_chat(encoder: EncoderTokenizer) -> None:
    asked = [{"role": "user", "content": "q"}]
    calls = (
        lambda: encoder.encode_prompt(asked),
        lambda: encoder.encode_training(asked, 16),
        lambda: encoder.encode_text("q"),
    )
    for call in calls:
        with pytest.raises(Invalid) as caught:
            call()
        assert caught.value.code == "not_generative"
    assert not encoder.generates
    assert encoder.split_reasoning("<think>a</think>b") == (None, "<think>a</think>b")
    assert encoder.decode(encoder.encode_plain("where is my order", 16).input_ids) == "where is my order"


def test_a_lone_surrogate_is_bad_input(encoder: ChatTokenizer) -> None:
    with pytest.raises(Invalid) as caught:
        encoder.encode_plain("\ud800", 16)
    assert caught.value.code == "invalid_text"
