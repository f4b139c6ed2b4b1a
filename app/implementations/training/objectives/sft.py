"""Supervised fine-tuning: cross-entropy of the assistant's tokens."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from app.core.entities.datasets import IGNORED, TokenizedRow
from app.implementations.training.batches import PackedBatch
from app.implementations.training.method import Objective


class SftObjective(Objective):
    """Batch → the summed loss of its supervised tokens."""

    counts_tokens = True

    @staticmethod
    def weight(row: TokenizedRow) -> int:
        return row.supervised

    def forward(self, batch: PackedBatch) -> dict[str, torch.Tensor]:
        logits, targets = supervised_logits(self.model, batch)
        return {"loss": cross_entropy(logits, targets, reduction="sum")}


def supervised_logits(model: Any, batch: PackedBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (S, vocabulary), in float32 at least, and targets (S,) of the supervised tokens, in the pack's order.

    The head is applied to the positions that predict a supervised token and to no other: for a chat row
    the logits are the largest tensor of the step.
    """
    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = causal_lm.model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        segments=batch.segments,
        use_cache=False,
    ).last_hidden_state
    targets = batch.labels[0, 1:]
    supervised = targets != IGNORED
    logits = causal_lm.lm_head(hidden[0, :-1][supervised])
    return logits.to(torch.promote_types(logits.dtype, torch.float32)), targets[supervised]
