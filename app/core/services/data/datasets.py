"""Datasets: is a file sound, what does its cut hold, and what does a base model make of it."""

from collections.abc import Sequence
from dataclasses import replace

from app.core.entities.datasets import (
    SPLITS,
    Conversation,
    DatasetCheck,
    PreparedDataset,
    SplitSummary,
    TokenizedRow,
    TokenSummary,
)
from app.core.errors import Invalid
from app.core.interfaces.components import BaseModelStore, ByteProgress, DatasetStore
from app.core.interfaces.services.data import DatasetFiles
from app.core.services.data.encoding import encode_by_shape
from app.utils.percentiles import percentiles

PERCENTILES = (50, 90, 100)


class DatasetService(DatasetFiles):
    def __init__(self, datasets: DatasetStore, bases: BaseModelStore) -> None:
        self._datasets = datasets
        self._bases = bases

    def check(self, dataset_path: str, *, trusted: bool = False) -> DatasetCheck:
        return self._datasets.check(dataset_path, trusted=trusted)

    def prepare(
        self, dataset_path: str, seed: int, *, trusted: bool = False, progress: ByteProgress | None = None
    ) -> PreparedDataset:
        check = self._datasets.check(dataset_path, trusted=trusted, progress=progress)
        if check.faults:
            raise Invalid("the data has faults", code="invalid_data", faults=check.faults)
        return self._datasets.prepare(dataset_path, check.digest, seed, trusted=trusted)

    def rows(
        self, dataset_path: str, seed: int, *, trusted: bool = False, progress: ByteProgress | None = None
    ) -> Sequence[Conversation]:
        prepared = self.prepare(dataset_path, seed, trusted=trusted, progress=progress)
        rows = [row for split in SPLITS for row in self._datasets.rows(prepared, split)]
        return sorted((replace(row, split=None) for row in rows), key=lambda row: row.row)

    def summary(
        self, prepared: PreparedDataset, base_model: str | None, max_length: int
    ) -> Sequence[SplitSummary]:
        tokenizer = self._bases.tokenizer(base_model) if base_model else None
        found = []
        for split in SPLITS:
            rows = self._datasets.rows(prepared, split)
            tokens = None
            if tokenizer and rows:
                tokens = _count([piece for row in rows for piece in encode_by_shape(row, tokenizer, max_length)])
            found.append(SplitSummary(split, len(rows), tokens))
        return found


def _count(rows: Sequence[TokenizedRow]) -> TokenSummary:
    lengths = [len(part.input_ids) for row in rows for part in (row, row.rejected) if part]
    supervised = sum(row.supervised for row in rows)
    return TokenSummary(
        supervised=supervised,
        unsupervised=sum(lengths) - supervised,
        truncated_rows=sum(row.truncated > 0 for row in rows),
        truncated=sum(row.truncated for row in rows),
        row_lengths=percentiles(lengths, PERCENTILES),
    )
