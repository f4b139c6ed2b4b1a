"""A row, token by token."""

import json
from pathlib import Path

import pytest

from app.core.entities.datasets import Conversation, Message
from app.core.entities.previews import PreviewSequence
from app.core.entities.training_config import TrainingConfig
from app.core.errors import Invalid
from app.core.interfaces.components import ChatTokenizer
from app.core.services.data.encoding import encode
from app.core.services.data.ledger import count_row
from app.core.services.data.preview import preview
from app.implementations.data.encoder_tokenizer import load_tokenizer
from app.implementations.models.random_encoder import write_random_encoder
from app.implementations.models.random_model import write_random_tokenizer

QUESTION: Message = {"role": "user", "content": "When do you open?"}
ANSWER: Message = {"role": "assistant", "content": "At nine."}
WORSE: Message = {"role": "assistant", "content": "Well, at nine or ten."}
CHAT = Conversation(8, [QUESTION, ANSWER])
PAIR = Conversation(7, [QUESTION, ANSWER], rejected=WORSE)
TEXT = Conversation(9, [], text="Once upon a time there was a shop that opened at nine.")
LABELLED = Conversation(10, [], text="When do you open?", label="hours")
ROWS = {"sft": CHAT, "dpo": PAIR, "pretrain": TEXT, "classification": LABELLED}


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_random_tokenizer(request.param, folder)
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_random_tokenizer("llama", folder)
    return load_tokenizer(folder)


def config(objective: str = "sft", max_length: int = 1000, **keys: str) -> TrainingConfig:
    return TrainingConfig.model_validate({"objective": objective, "max_length": max_length, **keys})


def text_of(sequence: PreviewSequence, *kinds: str) -> str:
    return "".join(token.text for token in sequence.tokens if token.kind in kinds)


@pytest.mark.parametrize("max_length", [1000, 16])
@pytest.mark.parametrize("objective", ROWS)
def test_the_tokens_are_those_that_are_trained_on(
    tokenizer: ChatTokenizer, objective: str, max_length: int
) -> None:
    row = ROWS[objective]
    try:
        encoded = encode(row, tokenizer, config(objective, max_length), ["hours"])
    except Invalid:
        with pytest.raises(Invalid):  # two answers that are alike as far as max_length goes
            preview(row, tokenizer, config(objective, max_length))
        return
    found = preview(row, tokenizer, config(objective, max_length))
    kept = [token.id for sequence in found.sequences for token in sequence.tokens if token.kind != "truncated"]
    expected = [
        token
        for number, piece in enumerate(encoded)
        for part in (piece, piece.rejected)
        if part
        for token in part.input_ids[min(number, 1) :]
    ]
    assert kept == expected
    assert found.count == count_row(encoded)
    kinds = [token.kind for sequence in found.sequences for token in sequence.tokens]
    if found.count.trained:
        assert (kinds.count("trained"), kinds.count("masked")) == (found.count.trained, found.count.masked)
    assert kinds.count("truncated") == found.count.truncated
    json.dumps(found.as_dict())


def test_special_tokens_and_the_answer_are_seen(chatml: ChatTokenizer) -> None:
    (sequence,) = preview(CHAT, chatml, config()).sequences
    assert text_of(sequence, "masked") == "<|im_start|>user\nWhen do you open?<|im_end|>\n<|im_start|>assistant\n"
    assert text_of(sequence, "trained") == "At nine.<|im_end|>"


def test_what_max_length_cuts_off_is_seen(chatml: ChatTokenizer) -> None:
    length = len(chatml.encode_prompt([QUESTION])) + 2
    (sequence,) = preview(CHAT, chatml, config(max_length=length)).sequences
    assert text_of(sequence, "trained", "truncated") == "At nine.<|im_end|>"
    assert "<|im_end|>" in text_of(sequence, "truncated")


def test_a_pair_is_two_sequences(tokenizer: ChatTokenizer) -> None:
    chosen, rejected = preview(PAIR, tokenizer, config("dpo")).sequences
    assert (chosen.name, rejected.name) == ("chosen", "rejected")
    assert "At nine." in text_of(chosen, "trained")
    assert "nine or ten" in text_of(rejected, "trained")


def test_pieces_of_a_text_join_to_the_text(tokenizer: ChatTokenizer) -> None:
    found = preview(TEXT, tokenizer, config("pretrain", 16))
    assert len(found.sequences) > 1
    assert found.sequences[1].name == "piece 2"
    whole = "".join(text_of(sequence, "trained", "masked") for sequence in found.sequences)
    assert whole.startswith(TEXT.text or "")
    assert found.count.masked == 1


def test_a_label_is_read_at_the_last_token_and_by_an_encoder_at_its_first(
    chatml: ChatTokenizer, tmp_path: Path
) -> None:
    (sequence,) = preview(LABELLED, chatml, config("classification")).sequences
    assert [token.kind for token in sequence.tokens].index("trained") == len(sequence.tokens) - 1

    write_random_encoder(tmp_path, "When do you open? hours", 512, 0)
    encoder = load_tokenizer(tmp_path)
    long = Conversation(1, [], text="When do you open? " * 9, label="hours")
    found = preview(long, encoder, config("classification", 16))
    (sequence,) = found.sequences
    assert [token.kind for token in sequence.tokens][:2] == ["trained", "masked"]
    assert (sequence.tokens[0].text.strip(), sequence.tokens[-1].text.strip()) == ("[CLS]", "[SEP]")
    assert (sequence.tokens[-1].kind, sequence.tokens[-2].kind) == ("masked", "truncated")
    assert found.label == "hours"


def test_reasoning_is_seen_or_gone(tokenizer: ChatTokenizer) -> None:
    thinks: Message = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nAt nine."}
    row = Conversation(1, [QUESTION, thinks])
    keep, drop = (preview(row, tokenizer, config(reasoning=reasoning)) for reasoning in ("keep", "drop"))
    assert "hm\n</think>\n\nAt nine." in text_of(keep.sequences[0], "trained")
    assert "hm" not in text_of(drop.sequences[0], "trained", "masked")
    only = Conversation(1, [QUESTION, {"role": "assistant", "content": "<think>hm</think>\n"}])
    with pytest.raises(Invalid) as caught:
        preview(only, tokenizer, config(reasoning="drop"))
    assert caught.value.code == "only_a_thought"


def test_a_character_of_several_tokens_stands_with_the_last_of_them(chatml: ChatTokenizer) -> None:
    family = "👨‍👩‍👧"
    row = Conversation(1, [QUESTION, {"role": "assistant", "content": family}])
    found = preview(row, chatml, config())
    spoken = [token.text for token in found.sequences[0].tokens if token.kind == "trained"]
    assert "".join(spoken) == family + "<|im_end|>"
    assert "" in spoken
