"""The rows of dataset versions as files: data/versions/<digest>, whole or not there, never changed."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from app.core.entities.datasets import Conversation, DataLimits
from app.core.errors import AppError, Invalid, Unavailable
from app.core.interfaces.components import ByteProgress, DataFormat, DatasetLibrary, KeptRows
from app.implementations.data.conversion import Conversion
from app.implementations.data.cuts import WHOLE, read_row, read_split, read_within, write_split
from app.implementations.data.parsing import SUFFIXES, read_rows
from app.implementations.data.token_cache import FOLDER as TOKENS
from app.utils.folders import fresh_neighbour, locked, manifest_of, move_into_place, remove_folder, seal

_DIGEST = re.compile(r"[0-9a-f]{64}")


class FolderDatasetLibrary(DatasetLibrary):
    """``formats`` in order of preference."""

    def __init__(self, data_dir: Path, formats: Sequence[DataFormat], limits: DataLimits) -> None:
        self._folder = data_dir / "versions"
        self._processed = data_dir / "processed"
        self._formats = formats
        self._limits = limits

    @contextmanager
    def receive(
        self, stream: BinaryIO, source: str, columns: Mapping[str, str], progress: ByteProgress | None = None
    ) -> Iterator[KeptRows]:
        suffix = Path(source).suffix.lower()
        if suffix not in SUFFIXES:
            known = ", ".join(SUFFIXES)
            raise Invalid(
                f"{source[:80]!r}: the file's name must end in one of {known}", code="file_type_not_supported"
            )
        conversion = Conversion(self._formats, self._limits, columns)
        with _file(stream) as file:
            rows = read_rows(file, suffix, conversion.faults, self._limits, columns, progress)
            with self._kept(conversion.convert(rows), conversion) as kept:
                yield kept

    @contextmanager
    def keeping(self, rows: Iterable[Conversation]) -> Iterator[KeptRows]:
        with self._kept(rows, None) as kept:
            yield kept

    def rows(self, digest: str) -> Sequence[Conversation]:
        return read_version(self._folder, digest)

    def folder(self, digest: str) -> Path:
        return version_folder(self._folder, digest)

    def row(self, digest: str, number: int) -> Conversation:
        return read_row(version_folder(self._folder, digest), number)

    def rows_within(self, digest: str, most_bytes: int) -> Sequence[Conversation] | None:
        return read_within(version_folder(self._folder, digest), most_bytes)

    def forget(self, digest: str, unless: Callable[[str], bool]) -> None:
        target = self._folder / digest
        with locked(target):
            if unless(digest):
                return
            remove_folder(target)
            # What was made of them says the same: an estimate leaves a cut, and the cut's tokens.
            for place in (self._processed, self._processed / TOKENS):
                for folder in place.glob(f"{digest}-*"):
                    remove_folder(folder)

    @contextmanager
    def _kept(self, rows: Iterable[Conversation], conversion: Conversion | None) -> Iterator[KeptRows]:
        """``rows`` go to the disk as they come; only then is it known whether they are sound, and their name."""
        fresh = fresh_neighbour(self._folder / "rows")
        try:
            count = _Counted(rows)
            digest = write_split(fresh, WHOLE, count)
            if conversion is not None:
                conversion.faults.raise_any("the data has faults", "invalid_data", "file")
            size = (fresh / f"{WHOLE}.parquet").stat().st_size
            seal(fresh, {"digest": digest, "rows": count.number})
            target = self._folder / digest
            with locked(target):
                is_new = not target.exists()
                if manifest_of(target) is None:
                    remove_folder(target)
                    move_into_place(fresh, target)
                try:
                    yield KeptRows(digest, count.number, size, conversion.format if conversion else None)
                except AppError as refusal:
                    if is_new and refusal.status < 500:  # beyond, a row may have been written after all
                        remove_folder(target)
                    raise
        finally:
            remove_folder(fresh)


@contextmanager
def _file(stream: BinaryIO) -> Iterator[BinaryIO]:
    """One of the system's: a small upload is bytes in memory, and what unpacks parquet is given a file."""
    try:
        stream.fileno()
    except OSError:
        with tempfile.TemporaryFile() as file:
            shutil.copyfileobj(stream, file)
            yield file
    else:
        yield stream


class _Counted:
    """Iterates once, and counts."""

    def __init__(self, rows: Iterable[Conversation]) -> None:
        self._rows = rows
        self.number = 0

    def __iter__(self) -> Iterator[Conversation]:
        for row in self._rows:
            self.number += 1
            yield row


def read_version(folder: Path, digest: str) -> Sequence[Conversation]:
    """Read the rows with that digest. ``Unavailable`` (dataset_missing)."""
    return read_split(version_folder(folder, digest), WHOLE)


def version_folder(folder: Path, digest: str) -> Path:
    """Return where the rows with that digest lie. ``Unavailable`` (dataset_missing)."""
    place = folder / digest
    if not _DIGEST.fullmatch(digest) or manifest_of(place) is None:
        raise Unavailable(
            "the rows of that dataset are gone from this host: upload them anew", code="dataset_missing"
        )
    return place
