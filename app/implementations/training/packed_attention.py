"""Causal attention inside each row of a packed batch, registered with transformers as ``packed``.

No (T, T) mask, and no row sees another. On a CPU short rows are laid side by side and multiplied as one batch:
PyTorch's fused CPU kernel takes three times as long on rows of 60 tokens (12 rows, 9 heads of 64, bf16, forward
and backward, one core: 44 ms against 14). Longer rows go through that kernel one by one: attending over the whole
pack would cost what the masked part costs.
"""

from functools import lru_cache
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from app.core.errors import Invalid

NAME = "packed"
SHORT_ROW = 256  # tokens

Segments = tuple[tuple[int, int], ...]


def packed_attention(
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
    longest = max(end - start for start, end in segments)
    if softcap is not None:
        raise Invalid("this base model caps its attention scores, which training does not support")
    if sliding_window is not None and longest > sliding_window:
        raise Invalid(f"max_length: this base model attends over {sliding_window} tokens; set no more")
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if query.device.type == "cpu" and dropout == 0.0 and longest <= SHORT_ROW:
        return _side_by_side(query, key, value, segments, scale), None
    parts = [
        scaled_dot_product_attention(
            query[:, :, start:end],
            key[:, :, start:end],
            value[:, :, start:end],
            dropout_p=dropout,
            is_causal=True,
            scale=scale,
        )
        for start, end in segments
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def _side_by_side(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, scale: float
) -> torch.Tensor:
    """(1, H, T, D) each → (1, T, H, D). What fills a short row's end stands after it, so causality hides it."""
    places, real, causal = _layout(segments)
    heads = [states[0].transpose(0, 1)[places].transpose(1, 2) for states in (query * scale, key, value)]
    scores = heads[0] @ heads[1].transpose(-1, -2)
    weights = (scores.float() + causal).softmax(-1).to(value.dtype)
    return (weights @ heads[2]).transpose(1, 2)[real].unsqueeze(0)


@lru_cache(maxsize=4)  # the layers of a step ask for the same one
def _layout(segments: Segments) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Places in the pack by (row, position), which of them are real, and the causal mask to add."""
    starts = torch.tensor([start for start, _ in segments])[:, None]
    lengths = torch.tensor([end - start for start, end in segments])[:, None]
    position = torch.arange(int(lengths.max()))[None, :]
    real = position < lengths
    places = torch.where(real, starts + position, starts)
    causal = torch.full((position.shape[1],) * 2, float("-inf")).triu(1)
    return places, real, causal


AttentionInterface.register(NAME, packed_attention)
