"""What each objective makes of a row, by the real tokenizer."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.entities.datasets import IGNORED, Conversation, Message
from app.core.entities.training_config import TrainingConfig
from app.core.errors import Invalid
from app.core.services.data.encoding import encode, encode_by_shape, labels_of
from app.implementations.data.tokenization import FolderChatTokenizer
from app.implementations.models.random_model import write_random_tokenizer
from tests.unit.core.services.jobs.execution.conftest import FakeTokenizer

SYSTEM: Message = {"role": "system", "content": "Be brief."}
QUESTION: Message = {"role": "user", "content": "When do you open?"}
ANSWER: Message = {"role": "assistant", "content": "At nine."}
AGAIN: Message = {"role": "user", "content": "And on Sunday?"}
CHOSEN: Message = {"role": "assistant", "content": "We are closed."}
REJECTED: Message = {"role": "assistant", "content": "Well, you know, on Sunday we do not open."}

PAIR = Conversation(7, [SYSTEM, QUESTION, ANSWER, AGAIN, CHOSEN], rejected=REJECTED)
CHAT = Conversation(8, [SYSTEM, QUESTION, ANSWER, AGAIN, CHOSEN])
LABELLED = Conversation(10, [], text="When do you open?", label="hours")
TEXT = Conversation(9, [], text="Once upon a time there was a shop that opened at nine.")


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FolderChatTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_random_tokenizer(request.param, folder)
    return FolderChatTokenizer(folder)


def config(objective: str, max_length: int = 1000) -> TrainingConfig:
    return TrainingConfig.model_validate({"objective": objective, "max_length": max_length})


def test_sft_supervises_the_answers(tokenizer: FolderChatTokenizer) -> None:
    (row,) = encode(CHAT, tokenizer, config("sft", 40))
    expected = tokenizer.encode_training(CHAT.messages, 40)
    assert (row.row, row.input_ids, row.labels) == (8, expected.input_ids, expected.labels)


def test_dpo_supervises_both_answers_after_one_prompt(tokenizer: FolderChatTokenizer) -> None:
    """And not the earlier answers, which are the prompt's: they are alike in both."""
    (row,) = encode(PAIR, tokenizer, config("dpo"))
    prompt = tokenizer.encode_prompt(PAIR.messages[:-1])
    assert row.rejected is not None
    for sequence, answer in ((row, CHOSEN), (row.rejected, REJECTED)):
        whole = tokenizer.encode_training([*PAIR.messages[:-1], answer], None)
        assert sequence.row == 7
        assert sequence.input_ids == whole.input_ids
        assert list(sequence.input_ids[: len(prompt)]) == prompt
        assert set(sequence.labels[: len(prompt)]) == {IGNORED}
        assert sequence.labels[len(prompt) :] == whole.input_ids[len(prompt) :]
    assert row.supervised == row.tokens - 2 * len(prompt)


def test_each_answer_of_a_pair_is_cut_to_max_length(tokenizer: FolderChatTokenizer) -> None:
    (whole,) = encode(PAIR, tokenizer, config("dpo"))
    assert whole.rejected is not None
    length = len(whole.input_ids)
    (row,) = encode(PAIR, tokenizer, config("dpo", length))
    assert row.rejected is not None
    assert (len(row.input_ids), len(row.rejected.input_ids)) == (length, length)
    assert row.truncated == len(whole.rejected.input_ids) - length > 0

    (unheard,) = encode(PAIR, tokenizer, config("dpo", 16))
    assert unheard.supervised == 0


def test_answers_that_differ_beyond_max_length_only_are_a_fault(tokenizer: FolderChatTokenizer) -> None:
    longer: Message = {"role": "assistant", "content": f"{CHOSEN['content']} Goodbye."}
    pair = Conversation(1, PAIR.messages, rejected=longer)
    prompt = len(tokenizer.encode_prompt(PAIR.messages[:-1]))
    with pytest.raises(Invalid, match=f"{prompt + 1} tokens") as caught:
        encode(pair, tokenizer, config("dpo", prompt + 1))
    assert caught.value.code == "same_answer"


@given(words=st.integers(1, 60), max_length=st.integers(16, 40))
def test_pretraining_drops_nothing(tokenizer: FolderChatTokenizer, words: int, max_length: int) -> None:
    """Each token but the text's first is the target of the one before it, once."""
    text = Conversation(9, [], text=" ".join(f"word{place}" for place in range(words)))
    rows = encode(text, tokenizer, config("pretrain", max_length))
    ids = tokenizer.encode_text(str(text.text))
    pairs = [pair for row in rows for pair in zip(row.input_ids, row.labels[1:], strict=False)]
    assert pairs == list(pairwise(ids))
    assert all(2 <= len(row.input_ids) <= max_length and row.row == 9 for row in rows)
    assert all(len(row.input_ids) == max_length for row in rows[:-1])


def test_pretraining_takes_a_conversation_as_its_template_renders_it(tokenizer: FolderChatTokenizer) -> None:
    (row,) = encode(CHAT, tokenizer, config("pretrain"))
    assert row.input_ids == row.labels == tokenizer.encode_training(CHAT.messages, None).input_ids


@pytest.mark.parametrize(
    ("objective", "row", "says"),
    [
        ("sft", PAIR, "is a preference pair, and the objective sft trains on conversations"),
        ("sft", TEXT, "is a plain text"),
        ("dpo", CHAT, "is a conversation, and the objective dpo trains on preference pairs: prompt, chosen and"),
        ("dpo", TEXT, "is a plain text"),
        ("pretrain", PAIR, "trains on plain texts"),
        ("pretrain", LABELLED, "is a labelled text"),
        ("sft", LABELLED, "is a labelled text"),
        ("classification", CHAT, "trains on labelled texts: text and label"),
        ("classification", TEXT, "is a plain text"),
    ],
)
def test_a_row_of_another_shape_is_refused(
    tokenizer: FolderChatTokenizer, objective: str, row: Conversation, says: str
) -> None:
    with pytest.raises(Invalid, match=says) as caught:
        encode(row, tokenizer, config(objective))
    assert caught.value.code == "wrong_shape"


@pytest.mark.parametrize(("row", "objective"), [(PAIR, "dpo"), (CHAT, "sft"), (TEXT, "pretrain")])
def test_a_shape_has_an_objective(tokenizer: FolderChatTokenizer, row: Conversation, objective: str) -> None:
    assert encode_by_shape(row, tokenizer, 1000) == encode(row, tokenizer, config(objective))


def labelled(row: int, label: str, text: str = "hello") -> Conversation:
    return Conversation(row, [], text=text, label=label)


def test_labels_are_sorted_and_single() -> None:
    assert labels_of([labelled(1, "b"), labelled(2, "a"), labelled(3, "b"), CHAT]) == ["a", "b"]


def test_a_labelled_text_is_its_tokens_and_its_class(tokenizer: FolderChatTokenizer) -> None:
    (row,) = encode(LABELLED, tokenizer, config("classification"), ["account", "hours"])
    assert (row.row, row.class_id) == (10, 1)
    assert row.input_ids == tokenizer.encode_plain("When do you open?", 1000).input_ids
    assert set(row.labels) == {IGNORED}
    assert row.supervised == 1  # the class

    (shown,) = encode_by_shape(LABELLED, tokenizer, 1000)
    assert shown.input_ids == row.input_ids


def test_a_text_to_classify_is_cut_at_max_length(tokenizer: FolderChatTokenizer) -> None:
    (row,) = encode(labelled(1, "a", "x y " * 99), tokenizer, config("classification", 16), ["a", "b"])
    assert row.tokens == 16
    assert row.truncated > 0


@pytest.mark.parametrize(
    ("row", "where", "code"),
    [(labelled(1, "c"), "label", "unknown_label"), (labelled(1, "a", "..."), "text", "no_token")],
)
def test_a_text_that_cannot_be_classified(row: Conversation, where: str, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        encode(row, FakeTokenizer(), config("classification"), ["a", "b"])
    assert [(fault.where, fault.code) for fault in caught.value.faults] == [(where, code)]
