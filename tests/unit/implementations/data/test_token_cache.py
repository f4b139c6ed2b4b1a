"""Tokenized rows come back as they were, or not at all."""

import errno
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.entities.datasets import IGNORED, SPLITS, Split, TokenizedRow
from app.core.entities.training_config import TrainingConfig
from app.implementations.data import token_cache
from app.implementations.data.token_cache import FOLDER, FileTokenCache
from app.implementations.data.tokenization import FolderChatTokenizer
from app.utils.folders import seal

CONFIG = TrainingConfig()
IDS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=12)


@st.composite
def sequences(draw: st.DrawFn, row: int) -> TokenizedRow:
    ids = draw(IDS)
    labels = [i if draw(st.booleans()) else IGNORED for i in ids]
    class_id = draw(st.none() | st.integers(0, 999))
    return TokenizedRow(row, ids, labels, draw(st.integers(0, 99)), class_id, dropped=draw(st.integers(0, 3)))


@st.composite
def rows(draw: st.DrawFn) -> TokenizedRow:
    row = draw(st.integers(1, 10**6))
    found = draw(sequences(row))
    rejected = draw(st.none() | sequences(row))
    return TokenizedRow(
        row, found.input_ids, found.labels, found.truncated, found.class_id, rejected, found.dropped
    )


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    folder = tmp_path / "processed" / "abc-42"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text("{}\n")
    seal(folder, {"digest": "abc"})
    return folder


Put = Callable[..., None]


@pytest.fixture
def put(cut: Path, chatml: FolderChatTokenizer) -> Put:
    def write(given: Sequence[TokenizedRow], config: TrainingConfig = CONFIG) -> None:
        with FileTokenCache().keeping(cut, chatml, config) as keep:
            for row in given:
                keep("train", [row])

    return write


def row(number: int = 1) -> TokenizedRow:
    return TokenizedRow(number, [1, 2, 3], [IGNORED, 2, 3], 4, dropped=1)


@settings(max_examples=50)
@given(given=st.fixed_dictionaries({split: st.lists(rows(), max_size=4) for split in SPLITS}))
def test_rows_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory,
    chatml: FolderChatTokenizer,
    given: dict[Split, list[TokenizedRow]],
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    seal(folder, {})
    cache = FileTokenCache()
    with cache.keeping(folder, chatml, CONFIG) as keep:
        for split, found in given.items():
            keep(split, found)
    back = cache.find(folder, chatml, CONFIG)
    assert back is not None
    assert back == given
    assert repr([back[split] for split in SPLITS]) == repr([given[split] for split in SPLITS])  # as pins read them


def test_what_the_ids_do_not_depend_on_finds_them(
    cut: Path, chatml: FolderChatTokenizer, put: Put, chatml_folder: Path
) -> None:
    put([row()])
    other = CONFIG.with_changes(learning_rate=0.5, num_epochs=9, train_samples=3, experiment_name="other")
    assert FileTokenCache().find(cut, FolderChatTokenizer(chatml_folder), other) is not None


@pytest.mark.parametrize("change", [{"max_length": 77}, {"objective": "pretrain"}, {"reasoning": "drop"}])
def test_another_config_has_rows_of_its_own(
    cut: Path, chatml: FolderChatTokenizer, put: Put, change: dict[str, object]
) -> None:
    put([row()])
    assert FileTokenCache().find(cut, chatml, CONFIG.with_changes(**change)) is None


def test_another_tokenizer_has_rows_of_its_own(cut: Path, r1: FolderChatTokenizer, put: Put) -> None:
    put([row()])
    assert FileTokenCache().find(cut, r1, CONFIG) is None


def test_another_cut_has_rows_of_its_own(cut: Path, chatml: FolderChatTokenizer, put: Put) -> None:
    put([row()])
    (cut / "train.jsonl").write_text("{} \n")
    seal(cut, {"digest": "abc"})
    assert FileTokenCache().find(cut, chatml, CONFIG) is None


def test_a_cut_that_does_not_say_what_it_holds_has_none(tmp_path: Path, chatml: FolderChatTokenizer) -> None:
    cut = tmp_path / "cut"
    cut.mkdir()
    with FileTokenCache().keeping(cut, chatml, CONFIG) as keep:
        keep("train", [row()])
    assert FileTokenCache().find(cut, chatml, CONFIG) is None
    assert [path.name for path in tmp_path.iterdir()] == ["cut"]


def only_folder(cut: Path) -> Path:
    (found,) = (path for path in (cut.parent / FOLDER).iterdir())
    return found


@pytest.mark.parametrize("damage", ["cut short", "another number", "no manifest", "a file is gone"])
def test_a_damaged_one_is_made_anew(cut: Path, chatml: FolderChatTokenizer, put: Put, damage: str) -> None:
    put([row()])
    folder = only_folder(cut)
    file = folder / "train.bin"
    content = file.read_bytes()
    match damage:
        case "cut short":
            file.write_bytes(content[:-4])
        case "another number":
            file.write_bytes(content[:-4] + b"\x01\x02\x03\x04")
        case "no manifest":
            (folder / "manifest.json").unlink()
        case _:
            file.unlink()
    assert FileTokenCache().find(cut, chatml, CONFIG) is None
    put([row(2)])
    assert FileTokenCache().find(cut, chatml, CONFIG) == {"train": [row(2)], "validation": [], "test": []}


def test_a_check_that_ends_badly_leaves_nothing(cut: Path, chatml: FolderChatTokenizer) -> None:
    with pytest.raises(RuntimeError), FileTokenCache().keeping(cut, chatml, CONFIG) as keep:  # noqa: PT012
        keep("train", [row()])
        raise RuntimeError
    assert list((cut.parent / FOLDER).iterdir()) == []


def test_a_full_disk_costs_no_job(
    cut: Path, chatml: FolderChatTokenizer, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, about: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(token_cache, "seal", full)
    put([row()])
    assert FileTokenCache().find(cut, chatml, CONFIG) is None
    assert list((cut.parent / FOLDER).iterdir()) == []


def test_those_used_longest_ago_make_room(
    cut: Path, chatml: FolderChatTokenizer, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_cache, "MOST_KEPT", 2)
    configs = [CONFIG.with_changes(max_length=length) for length in (20, 30, 40)]
    for age, config in enumerate(configs):
        put([row()], config)
        for path in (cut.parent / FOLDER).iterdir():
            moment = path.stat().st_mtime - 10 * (3 - age)
            token_cache.os.utime(path, (moment, moment))
    found = [FileTokenCache().find(cut, chatml, config) is not None for config in configs]
    assert found == [False, True, True]


def test_the_manifest_says_how_the_records_are_laid_out(cut: Path, put: Put) -> None:
    put([row()])
    assert json.loads((only_folder(cut) / "manifest.json").read_text())["layout"] == token_cache.LAYOUT
