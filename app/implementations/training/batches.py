"""Which rows make which step, and how rows become one packed batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from app.core.entities.datasets import IGNORED, TokenizedRow


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Sequences end to end, no padding. Tensors are (1, T); ``segments`` are the sequences' (start, end) within T.

    A row is one sequence; a preference pair is two, the chosen one first.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    segments: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]  # their places in the file, for messages
    classes: torch.Tensor | None = None  # (rows,), of labelled rows

    @property
    def tokens(self) -> int:
        return self.input_ids.shape[1]

    def to(self, device: torch.device) -> "PackedBatch":
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            labels=self.labels.to(device),
            classes=None if self.classes is None else self.classes.to(device),
        )


def plan_epoch(
    rows: int, batch_size: int, accumulation: int, seed: int, epoch: int, processes: int = 1
) -> list[list[list[int]]]:
    """Optimizer steps → micro-batches → row indices: a pure function of its arguments.

    Of a step's ``accumulation × processes`` micro-batches, rank r takes every ``processes``-th from the r-th on.
    The last step may be short; no row is left out and none is seen twice in an epoch.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(rows, generator=generator).tolist()
    micro = [order[i : i + batch_size] for i in range(0, rows, batch_size)]
    in_step = accumulation * processes
    return [micro[i : i + in_step] for i in range(0, len(micro), in_step)]


def share_of(rank: int, processes: int, micro_batches: Sequence[list[int]]) -> list[tuple[list[int], bool]]:
    """(rows, whether they count) of one rank's micro-batches. Every rank gets equally many.

    Where there are none left, a rank computes the step's first ones again, for nothing: collective operations
    want all ranks.
    """
    turns = -(-len(micro_batches) // processes)
    places = [turn * processes + rank for turn in range(turns)]
    return [
        (micro_batches[place], True) if place < len(micro_batches) else (micro_batches[0], False)
        for place in places
    ]


def pack(rows: Sequence[TokenizedRow]) -> PackedBatch:
    """Concatenate rows. Positions start anew in each, and a sequence's first token is nobody's target."""
    ids: list[int] = []
    labels: list[int] = []
    positions: list[int] = []
    segments: list[tuple[int, int]] = []
    for row in rows:
        for sequence in (row, row.rejected) if row.rejected else (row,):
            start = len(ids)
            ids.extend(sequence.input_ids)
            labels.append(IGNORED)
            labels.extend(sequence.labels[1:])
            positions.extend(range(len(sequence.input_ids)))
            segments.append((start, len(ids)))
    classes = [row.class_id for row in rows]
    return PackedBatch(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        labels=torch.tensor([labels]),
        segments=tuple(segments),
        rows=tuple(row.row for row in rows),
        classes=None if None in classes else torch.tensor(classes),
    )
