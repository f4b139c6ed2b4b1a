import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from app.utils.folders import (
    building,
    fresh_neighbour,
    is_disk_full,
    locked,
    manifest_of,
    move_into_place,
    remove_folder,
    seal,
    sha256_of,
)


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "a"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "x").write_bytes(b"hello")
    seal(folder, {"name": "a"})
    return folder


def test_a_manifest_lists_every_file(sealed: Path) -> None:
    manifest = manifest_of(sealed)
    assert manifest == {
        "name": "a",
        "files": {"deep/x": {"bytes": 5, "sha256": sha256_of(sealed / "deep" / "x")}},
    }


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"files": []}', '{"files": {"x": 1}}', '{"files": {"x": {}}}']
)
def test_what_is_no_manifest_of_ours(sealed: Path, content: str) -> None:
    (sealed / "manifest.json").write_text(content)
    assert manifest_of(sealed) is None


def test_a_file_that_is_gone_or_shorter(sealed: Path) -> None:
    (sealed / "deep" / "x").write_bytes(b"hell")
    assert manifest_of(sealed) is None
    (sealed / "deep" / "x").unlink()
    assert manifest_of(sealed) is None


def test_the_first_to_move_stays(tmp_path: Path) -> None:
    target = tmp_path / "new" / "target"
    first, second = fresh_neighbour(target), fresh_neighbour(target)
    for folder in (first, second):
        (folder / "who").write_text(folder.name)
    move_into_place(second, target)
    move_into_place(first, target)
    assert (target / "who").read_text() == second.name
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_what_killed_processes_left_goes_after_a_day(tmp_path: Path) -> None:
    target = tmp_path / "target"
    old, recent = fresh_neighbour(target), fresh_neighbour(target)
    day_before = old.stat().st_mtime - 25 * 3600
    os.utime(old, (day_before, day_before))
    fresh = fresh_neighbour(target)
    assert {path.name for path in tmp_path.iterdir()} == {recent.name, fresh.name}


def test_what_is_built_takes_the_place_of_what_was_there(sealed: Path) -> None:
    with building(sealed) as folder:
        (folder / "y").write_text("new")
        assert (sealed / "deep" / "x").is_file()
    assert [path.name for path in sealed.iterdir()] == ["y"]
    assert list(sealed.parent.iterdir()) == [sealed]


def _write_half(folder: Path) -> None:
    (folder / "y").write_text("half")
    raise OSError(errno.ENOSPC, "no room")


def test_nothing_is_left_of_what_could_not_be_built(sealed: Path) -> None:
    with pytest.raises(OSError, match="no room"), building(sealed) as folder:
        _write_half(folder)
    assert manifest_of(sealed) is not None
    assert list(sealed.parent.iterdir()) == [sealed]


def _wrapped(inner: Exception) -> Exception:
    """As a library raises its own while it handles another."""
    try:
        try:
            raise inner
        finally:
            raise RuntimeError("unexpected pos 576 vs 534")
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "no space left"), True),
        (OSError(errno.EDQUOT, "quota exceeded"), True),
        (OSError(errno.EIO, "input/output error"), False),
        (Exception("I/O error: No space left on device (os error 28)"), True),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]), True),
        (shutil.Error([("a", "b", "[Errno 13] Permission denied: 'b'")]), False),
        (Exception("I/O error: Permission denied (os error 13)"), False),
        (_wrapped(OSError(errno.ENOSPC, "no space left")), True),
        (_wrapped(ValueError("28")), False),
    ],
)
def test_a_full_disk_is_known_whoever_says_so(error: Exception, full: bool) -> None:
    assert is_disk_full(error) is full


def test_a_lock_that_another_has(tmp_path: Path) -> None:
    with locked(tmp_path / "a"), pytest.raises(BlockingIOError), locked(tmp_path / "a", wait=False):
        pass
    with locked(tmp_path / "a", wait=False):
        pass


def test_remove(sealed: Path) -> None:
    remove_folder(sealed)
    remove_folder(sealed)
    assert list(sealed.parent.iterdir()) == []


def test_a_manifest_is_readable_text(sealed: Path) -> None:
    text = (sealed / "manifest.json").read_text("utf-8")
    assert text == json.dumps(json.loads(text), indent=2) + "\n"
