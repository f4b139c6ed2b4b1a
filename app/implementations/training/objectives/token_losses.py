"""The loss of each supervised token of a pack: what sft, pretrain and dpo are made of."""

from collections.abc import Collection
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from app.core.entities.datasets import IGNORED
from app.implementations.training.batches import PackedBatch
from app.implementations.training.kernels import head_loss


def token_losses(model: Any, batch: PackedBatch, kernels: Collection[str]) -> torch.Tensor:
    """Cross-entropies (S,) of the supervised tokens, in float32 at least, in the pack's order.

    The head is applied to the positions that predict a supervised token and to no other: for a chat row
    the logits are the largest tensor of the step.
    """
    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    supervised = batch.labels[0, 1:] != IGNORED
    targets = batch.labels[0, 1:][supervised]
    inputs = {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "segments": batch.segments,
        "use_cache": False,
    }
    if "head" in kernels and head_loss.fits(causal_lm):
        hidden = causal_lm.model(**inputs).last_hidden_state[0, :-1]
        return head_loss.frozen_head_loss(hidden[supervised], causal_lm.lm_head.weight, targets)
    # The model's own forward knows whether its logits are scaled or capped.
    logits = causal_lm(**inputs, logits_to_keep=supervised.nonzero()[:, 0]).logits[0]
    return cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), targets, reduction="none")
