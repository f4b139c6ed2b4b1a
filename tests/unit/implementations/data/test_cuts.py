"""Splits of a cut: what is written is read again, and its digest does not depend on the writer."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.entities.datasets import Conversation
from app.implementations.data import cuts
from app.implementations.data.cuts import read_split, write_split

TEXT = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["👩‍👩‍👧‍👦🏳️‍🌈", "متى \u202eabc\u202c", "e\u0301\u2028", "\x1b[0m", "\U0010ffff"]
)
ANY_TEXT = st.text(st.characters(), max_size=4)  # lone surrogates too
EXTRA = st.dictionaries(
    ANY_TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=4,
    ),
    max_size=3,
)


@st.composite
def conversations(draw: Any) -> Conversation:
    row, extra = draw(st.integers(1, 10**9)), draw(EXTRA)
    if draw(st.booleans()):
        return Conversation(row, [], "train", extra, text=draw(TEXT), label=draw(st.none() | TEXT))
    messages = [{"role": role, "content": draw(TEXT)} for role in ("user", "assistant")]
    rejected = {"role": "assistant", "content": draw(TEXT)} if draw(st.booleans()) else None
    return Conversation(row, messages, "train", extra, rejected)


def rows(count: int) -> list[Conversation]:
    asked = {"role": "user", "content": "q"}
    return [
        Conversation(place, [asked, {"role": "assistant", "content": f"a{place}"}], "train", {"id": place})
        for place in range(1, count + 1)
    ]


@settings(deadline=None, max_examples=50)
@given(given_rows=st.lists(conversations(), max_size=5))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, given_rows: list[Conversation]
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    write_split(folder, "train", given_rows)
    assert list(read_split(folder, "train")) == given_rows


def test_a_split_is_a_sequence_that_decodes_what_is_asked_for(tmp_path: Path) -> None:
    write_split(tmp_path, "train", rows(2500))
    found = read_split(tmp_path, "train")
    assert len(found) == 2500
    assert (found[0], found[-1], found[1234]) == (rows(1)[0], rows(2500)[-1], rows(2500)[1234])
    assert [row.row for row in found] == list(range(1, 2501))
    assert [row.row for row in found[10:2400][::2][:3]] == [11, 13, 15]
    assert list(found[:0]) == []
    assert not found[5:5]
    with pytest.raises(IndexError):
        found[2500]


def test_the_digest_is_of_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write_split(tmp_path, "train", rows(30))
    monkeypatch.setattr(cuts, "_GROUP_ROWS", 7)  # another writer: other bytes
    monkeypatch.setattr(cuts, "_ZSTD_LEVEL", 9)
    assert write_split(tmp_path, "test", rows(30)) == first
    assert (tmp_path / "train.parquet").read_bytes() != (tmp_path / "test.parquet").read_bytes()
    assert write_split(tmp_path, "validation", rows(29)) != first
    expected = {
        "extra": '{"id":1}',
        "label": None,
        "messages": [{"content": "q", "role": "user"}, {"content": "a1", "role": "assistant"}],
        "rejected": None,
        "row": 1,
        "split": "train",
        "text": None,
    }
    line = json.dumps(expected, separators=(",", ":")) + "\n"
    assert write_split(tmp_path, "one", rows(1)) == hashlib.sha256(line.encode()).hexdigest()


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_split(tmp_path, split, rows(500))
    assert (tmp_path / "train.parquet").read_bytes() == (tmp_path / "test.parquet").read_bytes()


def test_any_reader_of_parquet_reads_it(tmp_path: Path) -> None:
    from pyarrow.parquet import ParquetFile, read_table

    write_split(tmp_path, "train", rows(3))
    table = read_table(tmp_path / "train.parquet")
    assert table.column_names == ["row", "messages", "text", "label", "rejected", "split", "extra"]
    assert table.column("messages").to_pylist()[2][1] == {"role": "assistant", "content": "a3"}
    assert ParquetFile(tmp_path / "train.parquet").metadata.row_group(0).column(0).compression == "ZSTD"


def test_reading_leaves_one_file_more(tmp_path: Path) -> None:
    write_split(tmp_path, "train", rows(3))
    for _ in range(2):
        assert len(read_split(tmp_path, "train")) == 3
        assert sorted(file.name for file in tmp_path.iterdir()) == ["train.arrow", "train.parquet"]
