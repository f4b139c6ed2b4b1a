"""Tokenized rows kept beside the cuts, so that neither the trainer nor a second run tokenizes anew.

``data/processed/.tokens/<key>/`` has a file for each split: 32-bit integers, a record for each sequence. The key
says all that the ids depend on. Folders appear whole, by rename; those used longest ago make room.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from app.core.entities.datasets import IGNORED, SPLITS, Split, TokenizedRow
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import ChatTokenizer, TokenCache
from app.utils.folders import (
    MANIFEST,
    fresh_neighbour,
    manifest_of,
    move_into_place,
    remove_folder,
    seal,
    sha256_of,
)

FOLDER = ".tokens"
LAYOUT = 1  # of a record; another number where its fields or their meaning change
MOST_KEPT = 32
MOST_BYTES = 4 * 2**30
NO_CLASS = -1
HEAD = 6  # integers before the ids


class FileTokenCache(TokenCache):
    """A cut without a manifest does not say what it holds, and nothing is kept of it."""

    def find(
        self, cut: Path, tokenizer: ChatTokenizer, config: TrainingConfig
    ) -> Mapping[Split, Sequence[TokenizedRow]] | None:
        place = _place(cut, tokenizer, config)
        if place is None:
            return None
        with suppress(OSError, ValueError, IndexError, EOFError):
            manifest = manifest_of(place)
            if manifest is not None and manifest["files"].keys() == {f"{split}.bin" for split in SPLITS}:
                for name, entry in manifest["files"].items():
                    if sha256_of(place / name) != entry["sha256"]:
                        return None
                os.utime(place)  # it was used last
                return {split: _read(place / f"{split}.bin") for split in SPLITS}
        return None

    @contextmanager
    def keeping(
        self, cut: Path, tokenizer: ChatTokenizer, config: TrainingConfig
    ) -> Iterator[Callable[[Split, Sequence[TokenizedRow]], None]]:
        place = _place(cut, tokenizer, config)
        writer = _Writer(place)
        try:
            yield writer.write
        except BaseException:
            writer.discard()
            raise
        writer.keep()


class _Writer:
    """Writes nothing any more once a write has failed: a full disk costs the next run a second, not this job."""

    def __init__(self, place: Path | None) -> None:
        self._place = place
        self._files: dict[Split, BinaryIO] = {}
        self._open = ExitStack()
        self._folder: Path | None = None
        if place is not None:
            with suppress(OSError):
                self._folder = fresh_neighbour(place)
                for split in SPLITS:
                    self._files[split] = self._open.enter_context((self._folder / f"{split}.bin").open("wb"))

    def write(self, split: Split, pieces: Sequence[TokenizedRow]) -> None:
        if self._folder is None:
            return
        try:
            for piece in pieces:
                _record(piece).tofile(self._files[split])
        except (OSError, KeyError):
            self.discard()

    def keep(self) -> None:
        if self._folder is None or self._place is None:
            return
        try:
            self._open.close()
            seal(self._folder, {"layout": LAYOUT})
            remove_folder(self._place)
            move_into_place(self._folder, self._place)
            _make_room(self._place.parent)
        except OSError:
            self.discard()

    def discard(self) -> None:
        with suppress(OSError):  # what a closing file still had to write
            self._open.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None


def _place(cut: Path, tokenizer: ChatTokenizer, config: TrainingConfig) -> Path | None:
    try:
        manifest = sha256_of(cut / MANIFEST)
    except OSError:
        return None
    about = [LAYOUT, manifest, tokenizer.fingerprint, config.objective, config.max_length, config.reasoning]
    return cut.parent / FOLDER / f"{cut.name}-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]}"


def _record(row: TokenizedRow) -> array[int]:
    """row, class, truncated, dropped, has a rejected one, tokens, ids, 2 × spans, start and end of each span.

    A span is supervised from its start up to its end.
    """
    spans: list[int] = []
    place = 0
    for ignored, run in groupby(row.labels, IGNORED.__eq__):
        length = len(list(run))
        if not ignored:
            spans += (place, place + length)
        place += length
    class_id = NO_CLASS if row.class_id is None else row.class_id
    head = (row.row, class_id, row.truncated, row.dropped, int(row.rejected is not None), len(row.input_ids))
    record = array("i", (*head, *row.input_ids, len(spans), *spans))
    return record + _record(row.rejected) if row.rejected else record


def _read(file: Path) -> list[TokenizedRow]:
    numbers = array("i")
    numbers.frombytes(file.read_bytes())
    rows: list[TokenizedRow] = []
    place = 0
    while place < len(numbers):
        row, place = _row(numbers, place)
        rows.append(row)
    return rows


def _row(numbers: array[int], place: int) -> tuple[TokenizedRow, int]:
    """The one that begins at ``place``, and where the next one does."""
    row, class_id, truncated, dropped, is_pair, tokens = numbers[place : place + HEAD]
    place += HEAD
    ids = numbers[place : place + tokens].tolist()
    place += tokens
    labels = [IGNORED] * tokens
    spans = numbers[place + 1 : place + 1 + numbers[place]]
    for start, end in zip(spans[::2], spans[1::2], strict=True):
        labels[start:end] = ids[start:end]
    place += 1 + len(spans)
    rejected = None
    if is_pair:
        rejected, place = _row(numbers, place)
    found = None if class_id == NO_CLASS else class_id
    return TokenizedRow(row, ids, labels, truncated, found, rejected, dropped), place


def _make_room(folder: Path) -> None:
    kept = [path for path in folder.iterdir() if not path.name.startswith(".")]
    kept.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    used = 0
    for place, path in enumerate(kept):
        used += sum(file.stat().st_size for file in path.iterdir())
        if place >= MOST_KEPT or (place and used > MOST_BYTES):
            remove_folder(path)
