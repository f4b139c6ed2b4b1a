"""Datasets as files: data/raw, which people fill, and data/processed, immutable cuts made from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.core.entities.datasets import SPLITS, Conversation, DatasetCheck, PreparedDataset
from app.core.errors import Conflict, Invalid
from app.core.interfaces.components import DataFormat, DatasetStore
from app.implementations.data.parsing import parse_rows
from app.implementations.data.places import read_trusted, read_untrusted
from app.implementations.data.splitting import split
from app.implementations.data.validation import Faults, check_row_shape, check_split
from app.utils.folders import (
    fresh_neighbour,
    locked,
    manifest_of,
    move_into_place,
    remove_folder,
    seal,
    sha256_of,
)

_ONLY_SOME = ("rejected", "text", "label")  # what only some shapes of row have


class FileDatasetStore(DatasetStore):
    """``formats`` in order of preference; ``max_bytes`` bounds what an untrusted caller may have read."""

    def __init__(self, data_dir: Path, formats: Sequence[DataFormat], max_bytes: int) -> None:
        self._raw = data_dir / "raw"
        self._processed = data_dir / "processed"
        self._formats = formats
        self._max_bytes = max_bytes

    def check(self, dataset_path: str, *, trusted: bool = False) -> DatasetCheck:
        content = self._content(dataset_path, trusted)
        faults = Faults()
        rows = self._rows(content, dataset_path, faults)
        digest = hashlib.sha256(content).hexdigest()
        return DatasetCheck(dataset_path, digest, len(rows), faults.listed("file"))

    def prepare(self, dataset_path: str, digest: str, seed: int, *, trusted: bool = False) -> PreparedDataset:
        """``Conflict`` (dataset_changed) if the file is no longer the one with that digest."""
        content = self._content(dataset_path, trusted)
        if hashlib.sha256(content).hexdigest() != digest:
            raise Conflict(
                "the file has changed since it was checked: submit the job again", code="dataset_changed"
            )
        target = self._processed.resolve() / f"{digest}-{seed}"  # whole: a cut is found by it
        with locked(target):
            if not _is_sound(target):
                remove_folder(target)
                parts = split(self._sound_rows(content, dataset_path), seed)
                temporary = fresh_neighbour(target)
                for name in SPLITS:
                    _write_rows(temporary / f"{name}.jsonl", parts[name])
                counts = {name: len(parts[name]) for name in SPLITS}
                seal(temporary, {"digest": digest, "seed": seed, "counts": counts})
                move_into_place(temporary, target)
        manifest = manifest_of(target) or {}
        return PreparedDataset(str(target), manifest["counts"])

    def rows(self, prepared: PreparedDataset, split: str) -> Sequence[Conversation]:
        return read_split(Path(prepared.folder), split)

    def _content(self, dataset_path: str, trusted: bool) -> bytes:
        if trusted:
            return read_trusted(dataset_path, self._raw)
        return read_untrusted(dataset_path, self._raw, self._max_bytes)

    def _sound_rows(self, content: bytes, dataset_path: str) -> Sequence[Conversation]:
        faults = Faults()
        rows = self._rows(content, dataset_path, faults)
        if faults:
            raise Invalid("the data has faults", code="invalid_data", faults=faults.listed("file"))
        return rows

    def _rows(self, content: bytes, dataset_path: str, faults: Faults) -> Sequence[Conversation]:
        """The rows that are sound; of the others, every fault."""
        parsed = parse_rows(content, Path(dataset_path).suffix, faults)
        with_split = any(isinstance(row, dict) and row.get("split") is not None for _, row in parsed)
        rows = []
        for number, row in parsed:
            if faults.hopeless:
                break
            if conversation := self._row(number, row, with_split, faults):
                rows.append(conversation)
        if with_split and len(rows) == len(parsed) and not any(row.split == "train" for row in rows):
            faults.add("file", "no_training_rows", "has no row whose split is train")
        return rows

    def _row(self, number: int, row: Any, with_split: bool, faults: Faults) -> Conversation | None:
        before = len(faults)
        place = f"row {number}"
        local = Faults()
        found: Conversation | None = None
        if check_row_shape(row, local):
            check_split(row, with_split, local)
            found = self._convert(number, row, local)
        for fault in local.listed(""):
            faults.add(f"{place}: {fault.where}" if fault.where else place, fault.code, fault.message)
        return found if len(faults) == before else None

    def _convert(self, number: int, row: Mapping[str, Any], faults: Faults) -> Conversation | None:
        form = next((form for form in self._formats if form.recognises(row)), None)
        if form is None:
            known = (
                "messages, or instruction and output, or prompt and completion, or question and answer, "
                "or prompt, chosen and rejected, or input, preferred_output and non_preferred_output, "
                "or text, or text and label"
            )
            faults.add("", "unknown_format", f"has none of the known shapes: {known}")
            return None
        try:
            found = form.convert(row)
        except Invalid as error:
            for fault in error.faults:
                faults.add(fault.where, fault.code, fault.message)
            return None
        extra = {key: value for key, value in row.items() if key not in form.columns | {"split"}}
        return replace(found, row=number, split=row.get("split"), extra=extra)


def read_split(folder: Path, split: str) -> Sequence[Conversation]:
    """The rows of one split of a cut, in the order of the raw file."""
    with (folder / f"{split}.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [Conversation(**row) for row in rows]


def _write_rows(file: Path, rows: Sequence[Conversation]) -> None:
    file.write_text("".join(f"{line}\n" for line in _as_json(rows, file.stem)), "utf-8")


def _as_json(rows: Sequence[Conversation], split: str) -> Iterator[str]:
    for row in rows:
        line = {"row": row.row, "split": split, "messages": row.messages, "extra": row.extra}
        line |= {name: value for name in _ONLY_SOME if (value := getattr(row, name)) is not None}
        # ASCII: a column that is no message may hold lone surrogates, which UTF-8 cannot write.
        yield json.dumps(line)


def _is_sound(folder: Path) -> bool:
    manifest = manifest_of(folder)
    return manifest is not None and all(
        sha256_of(folder / name) == entry["sha256"] for name, entry in manifest["files"].items()
    )
