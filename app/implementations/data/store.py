"""Datasets as files: data/raw, which people fill, and data/processed, immutable cuts made from it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from io import BufferedReader
from pathlib import Path
from typing import Any

from app.core.entities.datasets import SPLITS, Conversation, DataLimits, DatasetCheck, PreparedDataset
from app.core.errors import Conflict
from app.core.interfaces.components import ByteProgress, DataFormat, DatasetStore
from app.core.processors.splitting import split
from app.implementations.data.conversion import Conversion
from app.implementations.data.cuts import read_split, write_split
from app.implementations.data.library import read_version
from app.implementations.data.parsing import read_rows
from app.implementations.data.places import open_trusted, open_untrusted
from app.utils.folders import building, locked, manifest_of, seal, sha256_of

_UNPACKED = 10  # a parquet file of an untrusted caller may unpack to so many times what it may read


class FileDatasetStore(DatasetStore):
    """``formats`` in order of preference; ``max_bytes`` bounds what an untrusted caller may have read."""

    def __init__(
        self,
        data_dir: Path,
        formats: Sequence[DataFormat],
        max_bytes: int,
        limits: DataLimits = DataLimits(),  # noqa: B008  (frozen)
    ) -> None:
        self._raw = data_dir / "raw"
        self._processed = data_dir / "processed"
        self._versions = data_dir / "versions"
        self._formats = formats
        self._max_bytes = max_bytes
        self._limits = limits

    def check(
        self,
        dataset_path: str,
        *,
        trusted: bool = False,
        columns: Mapping[str, str] | None = None,
        progress: ByteProgress | None = None,
    ) -> DatasetCheck:
        with closing(self._open(dataset_path, trusted)) as file:
            digest = _digest(file)
            conversion = Conversion(self._formats, self._limits, columns or {})
            for _ in self._convert(conversion, file, dataset_path, trusted, progress):
                pass
        faults = conversion.faults.listed("file")
        return DatasetCheck(dataset_path, digest, conversion.sound, faults, conversion.format)

    def prepare(
        self,
        dataset_path: str,
        digest: str,
        seed: int,
        *,
        trusted: bool = False,
        columns: Mapping[str, str] | None = None,
    ) -> PreparedDataset:
        """``Conflict`` (dataset_changed) if the file is no longer the one with that digest."""
        changed = Conflict(
            "the file has changed since it was checked: submit the job again", code="dataset_changed"
        )
        with closing(self._open(dataset_path, trusted)) as file:
            state = _state(file)
            if _digest(file) != digest:
                raise changed
            target = self._processed.resolve() / _cut_name(digest, seed, columns or {})
            with locked(target):
                if not _is_sound(target):
                    conversion = Conversion(self._formats, self._limits, columns or {})
                    rows = list(self._convert(conversion, file, dataset_path, trusted))
                    conversion.faults.raise_any("the data has faults", "invalid_data", "file")
                    if _state(file) != state:
                        raise changed
                    _write_cut(target, rows, digest, seed)
        return _prepared(target)

    def prepare_version(self, digest: str, seed: int) -> PreparedDataset:
        target = self._processed.resolve() / _cut_name(digest, seed, {})
        with locked(target):
            if not _is_sound(target):
                _write_cut(target, list(read_version(self._versions, digest)), digest, seed)
        return _prepared(target)

    def processed(self, digest: str, seed: int, pipeline: Mapping[str, Any]) -> PreparedDataset | None:
        target = self._processed.resolve() / _cut_name(digest, seed, pipeline)
        return _prepared(target) if _is_sound(target) else None

    def keep_processed(
        self,
        digest: str,
        seed: int,
        pipeline: Mapping[str, Any],
        rows: Iterable[Conversation],
        report: Mapping[str, Any],
    ) -> PreparedDataset:
        target = self._processed.resolve() / _cut_name(digest, seed, pipeline)
        with locked(target):
            if not _is_sound(target):
                _write_cut(target, list(rows), digest, seed, report)
        return _prepared(target)

    def rows(self, prepared: PreparedDataset, split: str) -> Sequence[Conversation]:
        return read_split(Path(prepared.folder), split)

    def _open(self, dataset_path: str, trusted: bool) -> BufferedReader:
        if trusted:
            return open_trusted(dataset_path, self._raw, self._limits.bytes)
        return open_untrusted(dataset_path, self._raw, self._max_bytes)

    def _convert(
        self,
        conversion: Conversion,
        file: BufferedReader,
        dataset_path: str,
        trusted: bool,
        progress: ByteProgress | None = None,
    ) -> Iterator[Conversation]:
        limits = self._limits
        if not trusted:
            limits = replace(limits, bytes=min(limits.bytes, self._max_bytes * _UNPACKED))
        suffix = Path(dataset_path).suffix
        return conversion.convert(read_rows(file, suffix, conversion.faults, limits, conversion.columns, progress))


def _write_cut(
    target: Path, rows: Sequence[Conversation], digest: str, seed: int, report: Mapping[str, Any] | None = None
) -> None:
    parts = split(rows, seed)
    with building(target) as folder:
        digests = {name: write_split(folder, name, parts[name]) for name in SPLITS}
        counts = {name: len(parts[name]) for name in SPLITS}
        seal(folder, {"digest": digest, "seed": seed, "counts": counts, "rows": digests, "pipeline": report or {}})


def _prepared(target: Path) -> PreparedDataset:
    manifest = manifest_of(target) or {}
    return PreparedDataset(str(target), manifest["counts"], manifest.get("pipeline", {}))


def _digest(file: BufferedReader) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _state(file: BufferedReader) -> tuple[int, int]:
    """Changes when somebody writes to the file."""
    state = os.fstat(file.fileno())
    return state.st_mtime_ns, state.st_size


def _cut_name(digest: str, seed: int, changes: Mapping[str, Any]) -> str:
    """Name a cut; ``changes`` is what was done to the rows: other names of columns, or a pipeline."""
    if not changes:
        return f"{digest}-{seed}"
    written = json.dumps(sorted(changes.items())).encode()
    return f"{digest}-{seed}-{hashlib.sha256(written).hexdigest()[:12]}"


def _is_sound(folder: Path) -> bool:
    manifest = manifest_of(folder)
    return (
        manifest is not None
        and manifest["files"].keys() == {f"{name}.parquet" for name in SPLITS}  # an older cut held other files
        and all(sha256_of(folder / name) == entry["sha256"] for name, entry in manifest["files"].items())
    )
