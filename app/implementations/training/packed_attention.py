"""Causal attention inside each sequence of a packed batch, registered with transformers as ``packed``.

No (T, T) mask, and no sequence sees another: attending over the whole pack would cost what the masked part costs.
"""

from typing import Any

import torch
from transformers import AttentionInterface

from app.core.errors import Invalid
from app.implementations.training.kernels.attention import Segments, longest, packed_attention

NAME = "packed"


def attention_of_transformers(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    segments: Segments,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """query (1, H, T, D), key and value (1, H_kv, T, D) → (1, T, H, D).

    ``Invalid`` for a model whose attention this is not: soft-capped, or with a window shorter than a row.
    """
    if softcap is not None:
        raise Invalid("this base model caps its attention scores, which training does not support")
    if sliding_window is not None and longest(segments) > sliding_window:
        raise Invalid(f"max_length: this base model attends over {sliding_window} tokens; set no more")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return packed_attention(query[0], key[0], value[0], segments, scale, dropout)[None], None


AttentionInterface.register(NAME, attention_of_transformers)
