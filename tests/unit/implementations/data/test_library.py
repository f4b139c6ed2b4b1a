"""The rows of dataset versions: kept once, whole, and not forgotten while somebody has them."""

import io
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from app.core.entities.datasets import Conversation, DataLimits, TokenizedRow
from app.core.entities.training_config import TrainingConfig
from app.core.errors import Invalid, NotFound, Unavailable
from app.implementations.data.library import FolderDatasetLibrary
from app.implementations.data.store import FileDatasetStore
from app.implementations.data.token_cache import FileTokenCache
from app.registries import DATA_FORMATS

ROOT = Path(__file__).parents[4]
FORMATS = [DATA_FORMATS.create(name) for name in DATA_FORMATS.names()]
# Of data/raw/sample_data.json, on any machine. It changes with the file alone.
SAMPLE_DIGEST = "7cafac5fe88b"


@pytest.fixture
def library(tmp_path):
    return FolderDatasetLibrary(tmp_path, FORMATS, DataLimits())


def rows(count, split=None):
    return [
        Conversation(
            number,
            [{"role": "user", "content": f"👩‍🚀 {number}?"}, {"role": "assistant", "content": "שלום"}],
            split,
            {"half": "\ud83d", "n": number},
        )
        for number in range(1, count + 1)
    ]


def test_rows_come_back_as_they_went_in(library, tmp_path):
    given = [*rows(3), Conversation(4, [], "test", text="a text", label="x")]
    with library.keeping(given) as kept:
        pass
    assert list(library.rows(kept.digest)) == given
    assert (kept.rows, kept.format) == (4, None)
    assert (tmp_path / "versions" / kept.digest / "rows.parquet").stat().st_size == kept.size


def test_equal_rows_are_kept_once_and_others_apart(library, tmp_path):
    digests = []
    for given in (rows(3), rows(3), rows(4), rows(3, "train")):
        with library.keeping(given) as kept:
            digests.append(kept.digest)
    assert len(set(digests)) == 3
    assert digests[0] == digests[1]
    folders = [path for path in (tmp_path / "versions").iterdir() if path.is_dir()]
    assert sorted(folder.name for folder in folders) == sorted(set(digests))


def test_the_sample_data_has_one_digest_everywhere(library):
    content = (ROOT / "data/raw/sample_data.json").read_bytes()
    with library.receive(io.BytesIO(content), "sample_data.json", {}) as kept:
        assert kept.digest.startswith(SAMPLE_DIGEST)


def test_a_faulty_upload_leaves_nothing(library, tmp_path):
    stream = io.BytesIO(b'{"prompt": "a", "completion": "b"}\n{"prompt": 5}\n')
    with pytest.raises(Invalid) as refused, library.receive(stream, "a.jsonl", {}):
        pass
    assert refused.value.code == "invalid_data"
    assert {fault.where for fault in refused.value.faults} == {"row 2: prompt", "row 2: completion"}
    assert [path for path in (tmp_path / "versions").iterdir() if path.is_dir()] == []


def test_rows_are_forgotten_unless_they_are_wanted(library):
    with library.keeping(rows(2)) as kept:
        pass
    library.forget(kept.digest, unless=lambda digest: digest == kept.digest)
    assert len(library.rows(kept.digest)) == 2
    library.forget(kept.digest, unless=lambda digest: False)
    with pytest.raises(Unavailable) as gone:
        library.rows(kept.digest)
    assert gone.value.code == "dataset_missing"
    library.forget(kept.digest, unless=lambda digest: False)  # again is no error


def test_what_was_made_of_forgotten_rows_goes_with_them(library, tmp_path, chatml):
    store = FileDatasetStore(tmp_path, FORMATS, 10**6)
    with library.keeping(rows(20)) as kept, library.keeping(rows(21)) as other:
        pass
    cut, stays = (Path(store.prepare_version(one.digest, 7).folder) for one in (kept, other))
    with FileTokenCache().keeping(cut, chatml, TrainingConfig()) as keep:
        keep("train", [TokenizedRow(1, [5, 6], [-100, 6])])
    tokens = tmp_path / "processed" / ".tokens"
    assert len(list(tokens.iterdir())) == 1
    library.forget(kept.digest, unless=lambda digest: False)
    assert not cut.exists()
    assert list(tokens.iterdir()) == []
    assert stays.is_dir()


@pytest.fixture
def in_groups_of_ten(monkeypatch):
    monkeypatch.setattr("app.implementations.data.cuts._GROUP_ROWS", 10)
    monkeypatch.setattr("app.implementations.data.cuts._BATCH", 4)


def test_a_row_is_read_without_the_others(library, tmp_path, in_groups_of_ten, monkeypatch):
    given = [*reversed(rows(33)), Conversation(40, [], "test", text="a text", label="x")]
    with library.keeping(given) as kept:
        pass
    built = []
    monkeypatch.setattr("app.implementations.data.cuts.Conversation", lambda **row: built.append(row) or row)
    for row in given:
        assert library.row(kept.digest, row.row) == asdict(row)
    assert len(built) == len(given)  # none but those that were asked for
    assert not list(tmp_path.rglob("*.arrow"))
    for number in (34, 2**31 - 1):
        with pytest.raises(NotFound) as missing:
            library.row(kept.digest, number)
        assert (missing.value.code, missing.value.message) == (
            "row_not_found",
            f"there is no row {number}: the rows are 1 to 40",
        )
    with pytest.raises(Unavailable):
        library.row("a" * 64, 1)


def test_rows_that_are_too_large_for_a_request_are_not_all_read(library, tmp_path, in_groups_of_ten, monkeypatch):
    with library.keeping(rows(33)) as kept:
        pass
    assert library.rows_within(kept.digest, 10_000) == rows(33)
    built = []
    monkeypatch.setattr("app.implementations.data.cuts.Conversation", lambda **row: built.append(row))
    assert library.rows_within(kept.digest, 1000) is None
    assert len(built) < 20
    assert not list(tmp_path.rglob("*.arrow"))


def test_what_compresses_well_counts_as_what_it_unpacks_to(library):
    long = [Conversation(number, [], text="the same " * 10_000) for number in range(1, 101)]
    with library.keeping(long) as kept:
        pass
    assert kept.size < 100_000
    assert library.rows_within(kept.digest, 1_000_000) is None


@pytest.mark.parametrize("digest", ["", "..", "../versions", "a" * 64, "A" * 64, "a" * 63 + "\n"])
def test_a_digest_that_is_none_opens_nothing(library, digest):
    with pytest.raises(Unavailable):
        library.rows(digest)


def test_damaged_rows_are_kept_anew(library, tmp_path):
    with library.keeping(rows(2)) as kept:
        pass
    (tmp_path / "versions" / kept.digest / "rows.parquet").write_bytes(b"")
    with pytest.raises(Unavailable):
        library.rows(kept.digest)
    with library.keeping(rows(2)):
        pass
    assert len(library.rows(kept.digest)) == 2


def test_a_version_is_cut_like_a_file(library, tmp_path):
    content = "".join(
        json.dumps({"messages": list(row.messages), "half": row.extra["half"], "n": row.extra["n"]}) + "\n"
        for row in rows(20)
    )
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "rows.jsonl").write_text(content)
    store = FileDatasetStore(tmp_path, FORMATS, 10**6)
    with library.receive(io.BytesIO(content.encode()), "rows.jsonl", {}) as kept:
        pass
    of_version = store.prepare_version(kept.digest, 7)
    of_file = store.prepare("rows.jsonl", store.check("rows.jsonl").digest, 7)
    assert of_version.counts == of_file.counts == {"train": 16, "validation": 2, "test": 2}
    for split in of_file.counts:
        assert list(store.rows(of_version, split)) == list(store.rows(of_file, split))
    assert store.prepare_version(kept.digest, 7) == of_version
