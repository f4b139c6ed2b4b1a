"""Which rows make which step, and how rows become one packed batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from app.core.entities.datasets import IGNORED, TokenizedRow


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Rows end to end, no padding. Tensors are (1, T); ``segments`` are the rows' (start, end) within T."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    segments: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]  # their places in the file, for messages
    supervised: int  # labels that count once shifted

    @property
    def tokens(self) -> int:
        return self.input_ids.shape[1]

    def to(self, device: torch.device) -> "PackedBatch":
        return PackedBatch(
            self.input_ids.to(device),
            self.position_ids.to(device),
            self.labels.to(device),
            self.segments,
            self.rows,
            self.supervised,
        )


def plan_epoch(rows: int, batch_size: int, accumulation: int, seed: int, epoch: int) -> list[list[list[int]]]:
    """Optimizer steps → micro-steps → row indices: a pure function of its arguments.

    The last step may be short; no row is left out and none is seen twice in an epoch.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(rows, generator=generator).tolist()
    micro = [order[i : i + batch_size] for i in range(0, rows, batch_size)]
    return [micro[i : i + accumulation] for i in range(0, len(micro), accumulation)]


def pack(rows: Sequence[TokenizedRow]) -> PackedBatch:
    """Concatenate rows. Positions start anew in each, and a row's first token is nobody's target."""
    ids: list[int] = []
    labels: list[int] = []
    positions: list[int] = []
    segments: list[tuple[int, int]] = []
    for row in rows:
        start = len(ids)
        ids.extend(row.input_ids)
        labels.append(IGNORED)
        labels.extend(row.labels[1:])
        positions.extend(range(len(row.input_ids)))
        segments.append((start, len(ids)))
    return PackedBatch(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        labels=torch.tensor([labels]),
        segments=tuple(segments),
        rows=tuple(row.row for row in rows),
        supervised=sum(label != IGNORED for label in labels),
    )
