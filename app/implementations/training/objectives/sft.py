"""Supervised fine-tuning: cross-entropy of the assistant's tokens."""

import torch

from app.core.entities.datasets import TokenizedRow
from app.implementations.training.batches import PackedBatch
from app.implementations.training.method import Objective
from app.implementations.training.objectives.token_losses import token_losses


class SftObjective(Objective):
    """Batch → the summed loss of its supervised tokens."""

    generates = True
    counts_tokens = True

    @staticmethod
    def weight(row: TokenizedRow) -> int:
        return row.supervised

    def forward(self, batch: PackedBatch) -> dict[str, torch.Tensor]:
        return {"loss": token_losses(self.model, batch, self.config.kernel_names).sum()}
