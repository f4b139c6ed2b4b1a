"""Which files a client may name."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from app.core.errors import Invalid
from app.implementations.data.parsing import SUFFIXES

_KINDS = " or ".join(SUFFIXES)
_RULE = f"dataset_path must be a relative path of a {_KINDS} file under data/raw, without '..'"


def read_untrusted(dataset_path: str, raw: Path, max_bytes: int) -> bytes:
    """A regular file under ``raw``, named ``data/raw/x.json`` or ``x.json``.

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
    content = None
    try:
        place = (raw / inside).resolve(strict=True)
        if place.is_relative_to(raw.resolve()):
            content = _read(place, max_bytes)
    except (OSError, RuntimeError):  # RuntimeError: a ring of links
        raise absent from None
    if content is None:
        raise absent
    return content


def read_trusted(dataset_path: str, raw: Path) -> bytes:
    """Any regular file of the host, of any size; ``data/raw/x.json`` is also looked for where data is kept."""
    named = Path(dataset_path).expanduser()
    if named.suffix not in SUFFIXES:
        raise Invalid(f"{dataset_path}: must be a {_KINDS} file", code="dataset_path_not_allowed")
    inside = Path(*named.parts[2:]) if named.parts[:2] == ("data", "raw") else named
    for place in (named, raw / inside):
        try:
            content = _read(place.resolve(), None)
        except (OSError, RuntimeError, ValueError):  # ValueError: a NUL in the path
            continue
        if content is not None:
            return content
    raise Invalid(f"{dataset_path}: there is no such file, or it cannot be read", code="dataset_not_found")


def _read(place: Path, max_bytes: int | None) -> bytes | None:
    """None for what is not a regular file. Opened without waiting, for a named pipe would block."""
    descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            return None
        if max_bytes is not None and state.st_size > max_bytes:
            raise Invalid(
                f"the file has {state.st_size:,} bytes and here at most {max_bytes:,} are taken: "
                "train with `python -m app.model.training_service`, or split the file",
                code="dataset_too_large",
            )
        return file.read()
