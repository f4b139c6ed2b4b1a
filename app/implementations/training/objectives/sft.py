"""Supervised fine-tuning: cross-entropy of the assistant's tokens."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from app.core.entities.datasets import IGNORED, TokenizedRow
from app.implementations.training.batches import PackedBatch
from app.implementations.training.method import Objective


class SftObjective(Objective):
    """Batch → the summed loss of its supervised tokens.

    The head is applied to the positions that predict a supervised token and to no other: for a chat row
    the logits are the largest tensor of the step.
    """

    counts_tokens = True

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @staticmethod
    def weight(row: TokenizedRow) -> int:
        return row.supervised

    def forward(self, batch: PackedBatch) -> dict[str, torch.Tensor]:
        causal_lm = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        hidden = causal_lm.model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            segments=batch.segments,
            use_cache=False,
        ).last_hidden_state
        targets = batch.labels[0, 1:]
        supervised = targets != IGNORED
        logits = causal_lm.lm_head(hidden[0, :-1][supervised])
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return {"loss": cross_entropy(logits, targets[supervised], reduction="sum")}
