"""Every token of every row is trained, masked, truncated or dropped, and the four add up to what there is."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from app.core.entities.datasets import SPLITS, Conversation, Message, Split, TokenizedRow
from app.core.entities.ledger import TokenCount, TokenLedger
from app.core.entities.training_config import TrainingConfig
from app.core.errors import Invalid
from app.core.services.data.encoding import encode, encode_whole, labels_of
from app.core.services.data.ledger import by_row, count_row, first_rows, make_ledger
from app.implementations.data.encoder_tokenizer import load_tokenizer
from app.implementations.data.store import FileDatasetStore
from app.implementations.models.random_encoder import write_random_encoder
from app.implementations.models.random_model import write_random_tokenizer
from app.registries import DATA_FORMATS

RAW = Path(__file__).parents[5] / "data" / "raw"
FILES = {
    "sft": "sample_data.json",
    "pretrain": "sample_data.json",
    "dpo": "sample_preferences.json",
    "classification": "sample_tickets.json",
}
PRESETS = ("llama", "qwen2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {name: tmp_path_factory.mktemp(name) for name in PRESETS}
    for name, folder in found.items():
        write_random_tokenizer(name, folder)
    return found


@pytest.fixture(scope="module")
def cuts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[Split, Sequence[Conversation]]]:
    store = FileDatasetStore(
        tmp_path_factory.mktemp("data"), [DATA_FORMATS.create(name) for name in DATA_FORMATS.names()], 10**7
    )
    found: dict[str, dict[Split, Sequence[Conversation]]] = {}
    for name in set(FILES.values()):
        check = store.check(str(RAW / name), trusted=True)
        prepared = store.prepare(str(RAW / name), check.digest, 42, trusted=True)
        found[name] = {split: store.rows(prepared, split) for split in SPLITS}
    return found


def tokens_of(raw: Tokenizer, text: str) -> int:
    return len(raw.encode(text, add_special_tokens=False).ids)


def written(raw: Tokenizer, preset: str, messages: Sequence[Message]) -> int:
    """What the tokenizer makes of a whole conversation, rendered by hand."""
    if preset == "llama":
        return tokens_of(raw, "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages))
    marks = {"system": "", "user": "<｜User｜>", "assistant": "<｜Assistant｜>"}
    ends = {"system": "", "user": "", "assistant": "<｜end▁of▁sentence｜>"}
    assert messages[0]["role"] == "system" or all(m["role"] != "system" for m in messages)
    *before, answer = messages
    history = "".join(f"{marks[m['role']]}{m['content']}{ends[m['role']]}" for m in before)
    begun = tokens_of(raw, f"<｜begin▁of▁sentence｜>{history}<｜Assistant｜><think>\n")
    return begun + tokens_of(raw, f"\n</think>\n\n{answer['content']}<｜end▁of▁sentence｜>")


def in_all(raw: Tokenizer, preset: str, row: Conversation, objective: str) -> int:
    if row.text is not None:
        return tokens_of(raw, row.text)
    total = written(raw, preset, row.messages)
    if objective == "dpo" and row.rejected is not None:
        total += written(raw, preset, [*row.messages[:-1], row.rejected])
    return total


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("objective", FILES)
@pytest.mark.parametrize("max_length", [1024, 60])
def test_the_four_add_up_on_the_sample_data(
    folders: dict[str, Path],
    cuts: dict[str, dict[Split, Sequence[Conversation]]],
    preset: str,
    objective: str,
    max_length: int,
) -> None:
    """By row, by split and in all, against the tokenizer by itself."""
    raw = Tokenizer.from_file(str(folders[preset] / "tokenizer.json"))
    tokenizer = load_tokenizer(folders[preset])
    cut = cuts[FILES[objective]]
    config = TrainingConfig(objective=objective, max_length=max_length)
    labels = labels_of(cut["train"])
    encoded: list[tuple[Split, Sequence[TokenizedRow]]] = []
    totals = dict.fromkeys(SPLITS, 0)
    same = 0
    for split in SPLITS:
        for row in cut[split][:150]:
            try:
                pieces = encode(row, tokenizer, config, labels)
            except Invalid as error:  # of a pair that differs beyond max_length only
                same += error.code == "same_answer"
                continue
            count = count_row(pieces)
            assert count.total == in_all(raw, preset, row, objective), f"row {row.row}"
            assert count.trained == sum(piece.supervised for piece in pieces)
            totals[split] += count.total
            encoded.append((split, pieces))
    ledger = make_ledger(encoded, tokenizer.stop_token_ids)
    assert {split: ledger.splits[split].tokens.total for split in SPLITS} == totals
    assert ledger.all.total == sum(totals.values())
    assert same < len(encoded) / 4
    if max_length == 60 and objective != "pretrain":
        assert ledger.all.truncated > 0


@pytest.mark.parametrize("text", ["Where is my order?", "order " * 700])
def test_an_encoder_reads_its_own_length_at_most(tmp_path: Path, text: str) -> None:
    write_random_encoder(tmp_path, "Where is my order? shipping", 512, 0)
    raw = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    config = TrainingConfig(objective="classification", max_length=2048)
    row = Conversation(1, [], text=text, label="a")
    count = count_row(encode(row, tokenizer, config, ["a"]))
    assert count.total == len(raw.encode(text).ids)
    assert count.trained == 1  # the token at which the label is read
    assert count.total == encode_whole(row, tokenizer, config)[0].tokens


def test_nobody_is_trained_on_a_first_token() -> None:
    assert count_row([TokenizedRow(1, [5, 6, 7], [5, 6, 7])]) == TokenCount(trained=2, masked=1)


def test_a_long_text_shares_a_token_between_two_pieces_and_counts_it_once() -> None:
    pieces = [TokenizedRow(1, [1, 2, 3], [1, 2, 3]), TokenizedRow(1, [3, 4], [3, 4])]
    assert count_row(pieces) == TokenCount(trained=3, masked=1)


def test_a_row_with_nothing_to_train_on_is_dropped() -> None:
    row = TokenizedRow(1, [1, 2], [-100, -100], truncated=4, dropped=1)
    assert count_row([row]) == TokenCount(truncated=4, dropped=3)


def test_rows_past_train_samples_are_dropped_whole() -> None:
    rows: list[tuple[Split, Sequence[TokenizedRow]]] = [
        ("train", [TokenizedRow(n, [1, 2, 3], [-100, 2, 3], truncated=1)]) for n in (1, 2, 3)
    ]
    ledger = make_ledger([*rows, ("test", rows[0][1])], {3}, train_samples=2)
    assert ledger.splits["train"].tokens == TokenCount(trained=4, masked=2, truncated=2, dropped=4)
    assert ledger.splits["train"].rows == 3
    assert ledger.splits["train"].ended_rows == 2
    assert ledger.splits["test"].tokens == TokenCount(trained=2, masked=1, truncated=1)
    assert ledger.as_dict()["all"] == {"trained": 6, "masked": 3, "truncated": 3, "dropped": 4, "total": 16}


def test_an_end_counts_where_it_is_trained() -> None:
    cut_off = TokenizedRow(1, [1, 2], [-100, 2], truncated=1)
    prompt_only = TokenizedRow(2, [9, 2], [-100, 2])
    in_the_rejected = TokenizedRow(3, [1, 2], [-100, 2], rejected=TokenizedRow(3, [1, 9], [-100, 9]))
    ledger = make_ledger([("train", [row]) for row in (cut_off, prompt_only, in_the_rejected)], [9])
    assert ledger.splits["train"].ended_rows == 1


def test_the_first_rows_keep_all_their_pieces() -> None:
    pieces = [TokenizedRow(row, [row], [row]) for row in (4, 4, 7, 9, 9)]
    assert [piece.row for piece in first_rows(pieces, 2)] == [4, 4, 7]
    assert first_rows(pieces, None) == pieces
    assert [len(group) for group in by_row(pieces)] == [2, 1, 2]


COUNTS = st.builds(TokenCount, *[st.integers(0, 9)] * 4)


@given(COUNTS, COUNTS)
def test_counts_add_up(one: TokenCount, other: TokenCount) -> None:
    assert (one + other).total == one.total + other.total


def test_an_empty_cut_has_no_tokens() -> None:
    assert TokenLedger({}).all == TokenCount()
    assert make_ledger([], []).all.total == 0
