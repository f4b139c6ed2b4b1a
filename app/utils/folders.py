"""Folders that appear whole or not at all, and say what they hold: ``manifest.json``, a sha256 for each file."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
_ABANDONED_SECONDS = 24 * 3600
# No room for what is written: of the disk, of a quota, of this process' limit on files.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def sha256_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def locked(target: Path, *, wait: bool = True) -> Iterator[None]:
    """One process at a time works on ``target``; the system frees the lock of one that is killed.

    ``BlockingIOError`` where another has it and ``wait`` is false.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def fresh_neighbour(target: Path) -> Path:
    """A new empty folder beside ``target``, to fill and move there.

    Neighbours of earlier processes that were killed meanwhile are removed a day later.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for old in target.parent.glob(".*.new-*"):
        try:
            abandoned = time.time() - old.stat().st_mtime > _ABANDONED_SECONDS
        except FileNotFoundError:  # it was moved into place just now
            continue
        if abandoned:
            shutil.rmtree(old, ignore_errors=True)
    fresh = target.parent / f".{target.name}.new-{uuid.uuid4().hex}"
    fresh.mkdir()
    return fresh


@contextmanager
def building(target: Path) -> Iterator[Path]:
    """A new folder to fill; it takes ``target``'s place when the block ends well, and is gone when it does not."""
    fresh = fresh_neighbour(target)
    try:
        yield fresh
        remove_folder(target)
        move_into_place(fresh, target)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def is_disk_full(error: BaseException | None) -> bool:
    """Whether ``error`` comes of a write that found no room, also where a library wrapped it in its own.

    safetensors and shutil.copytree say so in words; torch raises its own while it handles the system's.
    """
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _NO_ROOM
    said = str(error)
    words = [word for number in _NO_ROOM for word in (f"(os error {number})", f"[Errno {number}]")]
    return any(word in said for word in words) or is_disk_full(error.__context__)


def seal(folder: Path, about: Mapping[str, Any]) -> None:
    """Write the manifest, ``about`` with ``files``, and bring all of the folder to the disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    listing = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
        for file in files
    }
    text = json.dumps({**about, "files": listing}, indent=2, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", "utf-8")
    for path in [*files, folder / MANIFEST, *(p for p in folder.rglob("*") if p.is_dir()), folder]:
        _sync(path)


def move_into_place(temporary: Path, target: Path) -> None:
    """Rename; if another process was first, its folder stays and ``temporary`` goes."""
    try:
        temporary.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        shutil.rmtree(temporary)
    _sync(target.parent)


def remove_folder(folder: Path) -> None:
    """Out of sight by rename first, so that nobody ever meets half of it. None there is no error."""
    doomed = folder.parent / f".{folder.name}.new-{uuid.uuid4().hex}"
    try:
        folder.rename(doomed)
    except FileNotFoundError:
        return
    shutil.rmtree(doomed, ignore_errors=True)  # a sweep may be at it too


def manifest_of(folder: Path) -> Mapping[str, Any] | None:
    """The manifest if every file that it lists is there with its size; else None."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        sizes = {name: entry["bytes"] for name, entry in manifest["files"].items()}
        whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if whole else None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
