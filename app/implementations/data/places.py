"""Which files a client may name."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path, PurePosixPath

from app.core.errors import Invalid
from app.implementations.data.parsing import SUFFIXES

_KINDS = f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
_RULE = f"dataset_path must be a relative path of a {_KINDS} file under data/raw, without '..'"


def open_untrusted(dataset_path: str, raw: Path, max_bytes: int) -> BufferedReader:
    """A regular file under ``raw``, named ``data/raw/x.json`` or ``x.json``, to be closed by the caller.

    What is not there and what a link would lead outside to get the same answer, or the answer would tell a client
    what the host holds.
    """
    named = PurePosixPath(dataset_path)
    if (
        named.is_absolute()
        or ".." in named.parts
        or not dataset_path.isprintable()
        or "\\" in dataset_path
        or named.suffix not in SUFFIXES
    ):
        raise Invalid(_RULE, code="dataset_path_not_allowed")
    inside = PurePosixPath(*named.parts[2:]) if named.parts[:2] == ("data", "raw") else named
    absent = Invalid(f"there is no file {str(inside)[:200]!r} under data/raw", code="dataset_not_found")
    file = None
    try:
        place = (raw / inside).resolve(strict=True)
        if place.is_relative_to(raw.resolve()):
            file = _open(place)
    except (OSError, RuntimeError):  # RuntimeError: a ring of links
        raise absent from None
    if file is None:
        raise absent
    hint = "train with `python -m app.model.training_service`, or split the file"
    return _at_most(file, max_bytes, hint)


def open_trusted(dataset_path: str, raw: Path, max_bytes: int) -> BufferedReader:
    """Any regular file of the host; ``data/raw/x.json`` is also looked for where data is kept."""
    named = Path(dataset_path).expanduser()
    if named.suffix not in SUFFIXES:
        raise Invalid(f"{dataset_path}: must be a {_KINDS} file", code="dataset_path_not_allowed")
    inside = Path(*named.parts[2:]) if named.parts[:2] == ("data", "raw") else named
    for place in (named, raw / inside):
        try:
            file = _open(place.resolve())
        except (OSError, RuntimeError, ValueError):  # ValueError: a NUL in the path
            continue
        if file is not None:
            return _at_most(file, max_bytes, "split the file, or raise data_max_bytes")
    raise Invalid(f"{dataset_path}: there is no such file, or it cannot be read", code="dataset_not_found")


def _open(place: Path) -> BufferedReader | None:
    """None for what is not a regular file. Opened without waiting, for a named pipe would block."""
    descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    return None


def _at_most(file: BufferedReader, max_bytes: int, hint: str) -> BufferedReader:
    size = os.fstat(file.fileno()).st_size
    if size > max_bytes:
        file.close()
        raise Invalid(
            f"the file has {size:,} bytes and here at most {max_bytes:,} are taken: {hint}",
            code="dataset_too_large",
        )
    return file
