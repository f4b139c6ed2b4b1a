"""Causal attention inside each row of a packed batch, registered with transformers as ``packed``.

No padding and no (T, T) mask: one scaled-dot-product call a row. Attending over the whole pack would leak
between rows, and costs 30 % more on a CPU.
"""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from app.core.errors import Invalid

NAME = "packed"


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    segments: tuple[tuple[int, int], ...],
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """query (1, H, T, D), key and value (1, H_kv, T, D) → (1, T, H, D).

    ``Invalid`` for a model whose attention this is not: soft-capped, or with a window shorter than a row.
    """
    if softcap is not None:
        raise Invalid("this base model caps its attention scores, which training does not support")
    if sliding_window is not None and max(end - start for start, end in segments) > sliding_window:
        raise Invalid(f"max_length: this base model attends over {sliding_window} tokens; set no more")
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    parts = [
        scaled_dot_product_attention(
            query[:, :, start:end],
            key[:, :, start:end],
            value[:, :, start:end],
            dropout_p=dropout,
            is_causal=True,
            scale=scaling,
        )
        for start, end in segments
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


AttentionInterface.register(NAME, packed_attention)
