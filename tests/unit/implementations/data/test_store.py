"""Raw files in, faults or immutable cuts out."""

import hashlib
import json
import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.entities.datasets import SPLITS, Conversation, DatasetCheck, Message
from app.core.errors import Conflict, Invalid
from app.implementations.data.cuts import read_split
from app.implementations.data.formats import AlpacaFormat, MessagesFormat, PromptCompletionFormat
from app.implementations.data.parsing import read_rows
from app.implementations.data.store import FileDatasetStore
from app.utils.folders import seal

Put = Callable[..., str]


def row(number: int = 0, **columns: Any) -> dict[str, Any]:
    return {"question": f"question {number}", "answer": f"answer {number}", **columns}


def places(check: DatasetCheck) -> list[tuple[str, str]]:
    return [(fault.where, fault.code) for fault in check.faults]


class TestCheck:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("a.json", json.dumps([row(1), row(2)]).encode()),
            ("a.json", b"\xef\xbb\xbf" + json.dumps([row(1), row(2)]).encode()),
            ("a.jsonl", b"\n".join(json.dumps(row(i)).encode() for i in (1, 2))),
            ("a.jsonl", b"\xef\xbb\xbf\r\n" + b"\r\n\r\n".join(json.dumps(row(i)).encode() for i in (1, 2))),
            ("a.jsonl", '{"prompt": "a\u2028b", "completion": "c"}\n'.encode() * 2),
        ],
    )
    def test_a_sound_file(self, store: FileDatasetStore, put: Put, name: str, content: bytes) -> None:
        check = store.check(put(content, name))
        digest = hashlib.sha256(content).hexdigest()
        assert check == DatasetCheck(f"data/raw/{name}", digest, 2, (), "prompt_completion")

    @pytest.mark.parametrize(
        ("name", "content", "expected"),
        [
            ("a.json", b'[{"question": "a",}]', [("line 1, column 19", "invalid_json")]),
            ("a.json", b'[{"words": "x"}]', [("row 1", "unknown_format")]),
            (
                "a.jsonl",
                b'{"question": "a", "answer": "b"}\n{\n\n{"question": "a"}\n7',
                [("line 2, column 2", "invalid_json"), ("row 4: answer", "missing"), ("row 5", "wrong_type")],
            ),
        ],
    )
    def test_faults(
        self, store: FileDatasetStore, put: Put, name: str, content: bytes, expected: list[tuple[str, str]]
    ) -> None:
        path = put(content, name)
        check = store.check(path)
        assert places(check) == expected
        with pytest.raises(Invalid) as caught:
            store.prepare(path, check.digest, 0)
        assert caught.value.faults == check.faults
        assert caught.value.code == "invalid_data"

    def test_splits_are_given_to_all_rows_or_to_none(self, store: FileDatasetStore, put: Put) -> None:
        check = store.check(put([row(1, split="train"), row(2), row(3, split="dev"), row(4, split=None)]))
        assert places(check) == [
            ("row 2: split", "missing"),
            ("row 3: split", "unknown_split"),
            ("row 4: split", "missing"),
        ]
        assert places(store.check(put([row(1, split="test")]))) == [("file", "no_training_rows")]

    def test_the_format_is_that_of_the_first_sound_row(self, store: FileDatasetStore, put: Put) -> None:
        assert store.check(put([{"question": "q"}, {"text": "t"}, row(1)])).format == "text"
        assert store.check(put([{"question": "q"}])).format is None

    @pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
    def test_progress_ends_with_all_bytes(self, store: FileDatasetStore, put: Put, kind: str) -> None:
        rows = [row(i) for i in range(2500)]
        content = {
            "json": json.dumps(rows),
            "jsonl": "\n".join(map(json.dumps, rows)),
            "csv": "\n".join(["question,answer", *(f"{one['question']},{one['answer']}" for one in rows)]),
        }[kind].encode()
        told: list[tuple[int, int]] = []
        check = FileDatasetStore(store._raw.parent, store._formats, 10**6).check(
            put(content, f"a.{kind}"), progress=lambda done, size: told.append((done, size))
        )
        assert (check.rows, check.faults) == (2500, ())
        assert told == sorted(told)
        assert told[-1] == (len(content), len(content))

    def test_a_hundred_faults_are_listed(self, store: FileDatasetStore, put: Put) -> None:
        check = store.check(put([1] * 150))
        assert len(check.faults) == 101
        assert (check.faults[-1].where, check.faults[-1].message) == ("file", "50 more faults are not listed")

    JSON = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["messages", "role", "content", "instruction", "input", "output", "prompt"])
                | st.sampled_from(["completion", "question", "answer", "split", "system", "weight", "x"])
                | st.sampled_from(["chosen", "rejected", "preferred_output", "non_preferred_output", "text"])
                | st.sampled_from(["conversations", "from", "value", "label"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )

    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(rows=st.lists(JSON, max_size=4))
    def test_hostile_rows(self, store: FileDatasetStore, put: Put, rows: list[Any]) -> None:
        path = put(rows)
        check = store.check(path)
        if check.faults:
            return
        prepared = store.prepare(path, check.digest, 0)
        assert sum(len(store.rows(prepared, name)) for name in SPLITS) == check.rows == len(rows)


class TestColumns:
    """Columns that have other names."""

    def test_a_mapping_renames_before_a_shape_is_recognised(self, store: FileDatasetStore, put: Put) -> None:
        path = put([{"Frage": "q", "Antwort": "a", "part": "train", "id": 1}])
        assert places(store.check(path)) == [("row 1", "unknown_format")]
        columns = {"Frage": "prompt", "Antwort": "completion", "part": "split"}
        check = store.check(path, columns=columns)
        assert (check.rows, check.faults, check.format) == (1, (), "prompt_completion")
        prepared = store.prepare(path, check.digest, 0, columns=columns)
        (found,) = store.rows(prepared, "train")
        assert [message["content"] for message in found.messages] == ["q", "a"]
        assert found.extra == {"id": 1}
        with pytest.raises(Invalid):
            store.prepare(path, check.digest, 0)

    def test_cells_of_json_in_a_mapped_column(self, store: FileDatasetStore, put: Put) -> None:
        chat = json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])
        escaped = chat.replace('"', '""')
        path = put(f'chat,id\n"{escaped}",7\n'.encode(), "a.csv")
        check = store.check(path, columns={"chat": "messages"})
        assert (check.rows, check.faults, check.format) == (1, (), "messages")

    @pytest.mark.parametrize(
        ("columns", "expected"),
        [
            ({"q": "ask"}, [("columns.q", "unknown_column")]),
            (
                {"q": "prompt", "r": "prompt"},
                [("columns.q", "duplicate_column"), ("columns.r", "duplicate_column")],
            ),
            ({"question": "answer"}, [("row 1: answer", "duplicate_column"), ("row 1: question", "missing")]),
            ({"typo": "prompt"}, [("columns.typo", "unknown_column")]),
        ],
    )
    def test_a_faulty_mapping(
        self, store: FileDatasetStore, put: Put, columns: dict[str, str], expected: list[tuple[str, str]]
    ) -> None:
        assert places(store.check(put([row(1)]), columns=columns)) == expected


class TestPaths:
    @pytest.mark.parametrize("name", ["data/raw/sub/x.json", "sub/x.json", "./data/raw/sub/x.json"])
    def test_a_client_names_files_below_data_raw(self, store: FileDatasetStore, data_dir: Path, name: str) -> None:
        (data_dir / "raw" / "sub").mkdir()
        (data_dir / "raw" / "sub" / "x.json").write_text(json.dumps([row()]))
        assert store.check(name).rows == 1

    @pytest.mark.parametrize(
        "name",
        [
            *["", ".", "/etc/passwd", "/data/raw/x.json", "../x.json", "data/raw/../../x.json", "x.txt", "x"],
            *["x.json\0", "..\\x.json", "x.json\n", "\udcff.json", "data/raw/.json"],
        ],
    )
    def test_the_rule(self, store: FileDatasetStore, put: Put, name: str) -> None:
        put([row()], "x.json")
        with pytest.raises(Invalid, match="must be a relative path of a") as caught:
            store.check(name)
        assert caught.value.code == "dataset_path_not_allowed"

    def test_outside_is_told_as_not_there(
        self, store: FileDatasetStore, data_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        raw = data_dir / "raw"
        (data_dir / "secret.json").write_text(json.dumps([row()]))
        (raw / "link.json").symlink_to(data_dir / "secret.json")
        (raw / "nowhere.json").symlink_to(data_dir / "nothing.json")
        (raw / "ring.json").symlink_to(raw / "ring.json")
        (raw / "out").symlink_to(data_dir)
        (raw / "folder.json").mkdir()
        os.mkfifo(raw / "pipe.json")
        monkeypatch.chdir(raw)  # a socket's path has 107 bytes at most
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("socket.json")
        for name in ("link", "nowhere", "ring", "out/secret", "folder", "pipe", "socket", "absent", "x" * 300):
            with pytest.raises(Invalid) as caught:
                store.check(f"{name}.json")
            assert caught.value.code == "dataset_not_found"
            assert caught.value.message == f"there is no file {f'{name}.json'[:200]!r} under data/raw"

    def test_a_link_within_is_followed(self, store: FileDatasetStore, put: Put, data_dir: Path) -> None:
        put([row()], "x.json")
        (data_dir / "raw" / "y.json").symlink_to("x.json")
        assert store.check("y.json").rows == 1

    def test_a_client_s_file_may_be_so_large(self, store: FileDatasetStore, put: Put, data_dir: Path) -> None:
        path = put([row(i) for i in range(5000)])
        with pytest.raises(Invalid) as caught:
            store.check(path)
        assert caught.value.code == "dataset_too_large"
        assert store.check(str(data_dir / "raw" / "data.json"), trusted=True).rows == 5000

    def test_the_host_s_operator_may_name_any_file(
        self, store: FileDatasetStore, put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put([row()], "kept.json")
        (tmp_path / "mine.jsonl").write_text(json.dumps(row()))
        monkeypatch.chdir(tmp_path)
        for name in (str(tmp_path / "mine.jsonl"), "mine.jsonl", "data/raw/kept.json", "kept.json"):
            assert store.check(name, trusted=True).rows == 1
        for name in ("absent.json", "a\0.json", str(tmp_path), "mine.txt"):
            with pytest.raises(Invalid):
                store.check(name, trusted=True)


def _prepare(data_dir: Path, path: str, digest: str, start: Any, answers: Any) -> None:
    store = FileDatasetStore(data_dir, [MessagesFormat(), PromptCompletionFormat(), AlpacaFormat()], 10**6)
    start.wait()
    answers.put(store.prepare(path, digest, 7).folder)


class TestPrepare:
    def test_a_cut(self, store: FileDatasetStore, put: Put, data_dir: Path) -> None:
        path = put([row(i, fact_id=f"f{i}", keys=[["\ud800", 1]], id=i) for i in range(20)])
        digest = store.check(path).digest
        prepared = store.prepare(path, digest, 42)

        assert prepared.folder == str(data_dir / "processed" / f"{digest}-42")
        assert prepared.counts == {"train": 16, "validation": 2, "test": 2}
        manifest = json.loads((Path(prepared.folder) / "manifest.json").read_text())
        assert manifest["digest"] == digest
        assert set(manifest["files"]) == {f"{name}.parquet" for name in SPLITS}
        rows = sorted((r for name in SPLITS for r in store.rows(prepared, name)), key=lambda r: r.row)
        assert [r.row for r in rows] == list(range(1, 21))
        assert rows[3].messages[1]["content"] == "answer 3"
        assert rows[3].extra == {"fact_id": "f3", "keys": [["\ud800", 1]], "id": 3}
        assert read_split(Path(prepared.folder), "test")[0].split == "test"

    def test_every_shape_is_kept(self, store: FileDatasetStore, put: Put) -> None:
        rows = [
            {"prompt": "q", "chosen": "a", "rejected": "b", "split": "train", "note": 1},
            {"text": "Once upon a time.", "split": "train"},
            row(3, split="train"),
        ]
        path = put(rows)
        pair, text, plain = store.rows(store.prepare(path, store.check(path).digest, 0), "train")

        asked: Message = {"role": "user", "content": "q"}
        liked: Message = {"role": "assistant", "content": "a"}
        assert pair == Conversation(1, [asked, liked], "train", {"note": 1}, {"role": "assistant", "content": "b"})
        assert text == Conversation(2, [], "train", text="Once upon a time.")
        assert (plain.rejected, plain.text) == (None, None)

    def test_it_is_made_once(self, store: FileDatasetStore, put: Put) -> None:
        path = put([row(i) for i in range(5)])
        digest = store.check(path).digest
        first = store.prepare(path, digest, 0)
        made = (Path(first.folder) / "manifest.json").stat().st_ino
        assert store.prepare(path, digest, 0) == first
        assert (Path(first.folder) / "manifest.json").stat().st_ino == made
        assert store.prepare(path, digest, 1).folder != first.folder

    def test_a_damaged_cut_is_made_anew(self, store: FileDatasetStore, put: Put) -> None:
        path = put([row(i) for i in range(5)])
        digest = store.check(path).digest
        train = Path(store.prepare(path, digest, 0).folder) / "train.parquet"
        sound = train.read_bytes()
        train.write_bytes(sound[:-1] + b"?")
        store.prepare(path, digest, 0)
        assert train.read_bytes() == sound

    def test_an_earlier_kind_of_cut_is_made_anew(self, store: FileDatasetStore, put: Put, data_dir: Path) -> None:
        path = put([row(i) for i in range(5)])
        digest = store.check(path).digest
        old = data_dir / "processed" / f"{digest}-0"
        old.mkdir(parents=True)
        (old / "train.jsonl").write_text("{}\n")
        seal(old, {"digest": digest, "seed": 0, "counts": {"train": 1}})
        assert sum(store.prepare(path, digest, 0).counts.values()) == 5
        assert not (old / "train.jsonl").exists()

    def test_a_changed_file_is_a_conflict(self, store: FileDatasetStore, put: Put, data_dir: Path) -> None:
        path = put([row(1)])
        digest = store.check(path).digest
        put([row(2)])
        with pytest.raises(Conflict) as caught:
            store.prepare(path, digest, 0)
        assert caught.value.code == "dataset_changed"
        assert not (data_dir / "processed").exists()

    def test_a_file_that_changes_while_it_is_read_is_a_conflict(
        self, store: FileDatasetStore, put: Put, data_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = put([row(1)])
        digest = store.check(path).digest

        def read_and_write(*arguments: Any) -> Any:
            (data_dir / "raw" / "data.json").write_text(json.dumps([row(2), row(3)]))
            return read_rows(*arguments)

        monkeypatch.setattr("app.implementations.data.store.read_rows", read_and_write)
        with pytest.raises(Conflict) as caught:
            store.prepare(path, digest, 0)
        assert caught.value.code == "dataset_changed"

    def test_a_faulty_file_leaves_nothing(self, store: FileDatasetStore, put: Put, data_dir: Path) -> None:
        path = put([{"question": "a"}])
        with pytest.raises(Invalid):
            store.prepare(path, store.check(path).digest, 0)
        assert [p for p in (data_dir / "processed").iterdir() if p.is_dir()] == []

    def test_many_processes_at_once(self, store: FileDatasetStore, put: Put, data_dir: Path) -> None:
        path = put([row(i) for i in range(300)])
        context = multiprocessing.get_context("forkserver")
        start, answers = context.Barrier(4), context.Queue()
        arguments = (data_dir, path, store.check(path).digest, start, answers)
        workers = [context.Process(target=_prepare, args=arguments) for _ in range(4)]
        try:
            for worker in workers:
                worker.start()
            folders = {answers.get(timeout=30) for _ in workers}
            for worker in workers:
                worker.join(30)
        finally:
            for worker in workers:
                worker.kill()
        assert len(folders) == 1
        assert [p.name for p in (data_dir / "processed").iterdir() if p.is_dir()] == [Path(folders.pop()).name]
        assert [worker.exitcode for worker in workers] == [0] * 4
