"""events.ndjson read while it grows, in pieces and with lines that are not whole yet."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.implementations.queue import event_file
from app.implementations.queue.event_file import EventFile


def line(seq: int, text: str = "") -> bytes:
    event = {"seq": seq, "type": "message", "level": "info", "message": text, "data": {}}
    return json.dumps({**event, "created_at": "2026-11-01T10:00:00+00:00"}).encode() + b"\n"


def read_all(file: EventFile) -> list[int]:
    seen: list[int] = []
    while events := file.read():
        seen += [event.seq for event in events]
    return seen


def test_no_file_yet(tmp_path: Path) -> None:
    assert EventFile(tmp_path / "events.ndjson").read() == []


def test_a_read_is_bounded_and_the_next_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_file, "MOST_BYTES", 4 * len(line(1)))
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"".join(line(seq) for seq in range(1, 10)))
    file = EventFile(path)
    assert [[event.seq for event in file.read()] for _ in range(4)] == [[1, 2, 3, 4], [5, 6, 7, 8], [9], []]


def test_a_line_longer_than_a_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_file, "MOST_BYTES", 10)
    path = tmp_path / "events.ndjson"
    path.write_bytes(line(1, "x" * 5000) + line(2))
    file = EventFile(path)
    assert read_all(file) == [1, 2]


@given(cuts=st.lists(st.integers(0, 2000), max_size=8), most=st.integers(1, 400))
def test_every_event_once_in_order_however_the_file_grows(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], most: int
) -> None:
    whole = b"".join(line(seq, "ü\u2028" * seq) for seq in range(1, 12))
    path = tmp_path_factory.mktemp("events") / "events.ndjson"
    seen: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_file, "MOST_BYTES", most)
        file = EventFile(path)
        for end in sorted({*(cut for cut in cuts if cut < len(whole)), len(whole)}):
            path.write_bytes(whole[:end])
            seen += read_all(file)
    assert seen == list(range(1, 12))


@given(
    lengths=st.lists(st.sampled_from([0, 1, 40, 3000]), max_size=30),
    known=st.integers(0, 40),
    cut=st.integers(0, 200),
)
def test_what_is_known_is_not_read(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], known: int, cut: int
) -> None:
    """Whatever the lines' lengths, and with a last one that is not whole."""
    path = tmp_path_factory.mktemp("events") / "events.ndjson"
    lines = [line(seq, "x" * length) for seq, length in enumerate(lengths, 1)]
    path.write_bytes(b"".join(lines) + line(len(lines) + 1)[: min(cut, len(line(1)) - 1)])
    assert read_all(EventFile(path, after=known)) == list(range(known + 1, len(lines) + 1))


def test_few_lines_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"".join(map(line, range(1, 20_001))))
    parsed: list[bytes] = []
    whole = json.loads
    monkeypatch.setattr(event_file.json, "loads", lambda text: (parsed.append(text), whole(text))[1])
    assert [event.seq for event in EventFile(path, after=19_990).read()] == list(range(19_991, 20_001))
    assert len(parsed) < 50
