"""Causal attention within each sequence of a pack, by whatever is fastest where it runs.

On a CPU: queries in blocks, each against the keys up to its own end, so that part of the masked products is not
made. All the query heads of a key head are one matrix: keys and values are not repeated, and their gradients need
no sum. The attention weights are kept for the backward pass. PyTorch's own fused attention took 6 times as long on
a sequence of 64 tokens and 1.8 times on one of 1,024 (9 heads of 64 over 3 of keys, bf16, forward and backward,
one core). On CUDA in half precision: FlashAttention over the whole pack, as PyTorch ships it. Else PyTorch's fused
attention, a sequence at a time.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention

BLOCK = 320  # queries: smaller ones spare more masked products, and cost more calls than that saves
LONGEST = 1024  # tokens of a sequence: beyond, the kept weights (half of heads × length²) are no longer small

Segments = tuple[tuple[int, int], ...]


class _BlockAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        segments: Segments,
        scale: float,
    ) -> torch.Tensor:
        heads, tokens, _ = query.shape
        keys = key.shape[0]
        key, value = key.contiguous(), value.contiguous()
        out = torch.empty(tokens, heads, value.shape[-1], dtype=query.dtype, device=query.device)
        kept = []
        for start, end in segments:
            k, v = key[:, start:end], value[:, start:end]
            for first, last in _blocks(end - start):
                rows = slice(start + first, start + last)
                mask = _mask(first, last, heads // keys, query.dtype, query.device)
                q = _by_key_head(query[:, rows], keys)
                scores = torch.baddbmm(mask, q, k[:, :last].transpose(1, 2), alpha=scale)
                weights = torch.softmax(scores, -1)
                out[rows] = torch.bmm(weights, v[:, :last]).view(heads, last - first, -1).transpose(0, 1)
                kept.append(weights)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.segments, ctx.scale = segments, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        keys = key.shape[0]
        gradient = gradients[0].transpose(0, 1)
        to_query = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        to_key, to_value = torch.empty_like(key), torch.empty_like(value)
        weights = iter(kept)
        for start, end in ctx.segments:
            k, v = key[:, start:end], value[:, start:end]
            # From the last block, which reaches all keys, to the first: the sums begin with what it writes.
            blocks = [(block, next(weights)) for block in _blocks(end - start)]
            for (first, last), block_weights in reversed(blocks):
                rows = slice(start + first, start + last)
                incoming = _by_key_head(gradient[:, rows], keys)
                to_weights = torch.bmm(incoming, v[:, :last].transpose(1, 2))
                to_scores = torch._softmax_backward_data(to_weights, block_weights, -1, block_weights.dtype)
                found = torch.bmm(to_scores, k[:, :last])
                torch.mul(found.view(query[:, rows].shape), ctx.scale, out=to_query[:, rows])
                for_key = torch.bmm(to_scores.transpose(1, 2), _by_key_head(query[:, rows], keys))
                for_value = torch.bmm(block_weights.transpose(1, 2), incoming)
                if start + last == end:
                    torch.mul(for_key, ctx.scale, out=to_key[:, start:end])
                    to_value[:, start:end] = for_value
                else:
                    to_key[:, start : start + last].add_(for_key, alpha=ctx.scale)
                    to_value[:, start : start + last].add_(for_value)
        return to_query, to_key, to_value, None, None


def block_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, scale: float
) -> torch.Tensor:
    """query (H, T, d), key and value (H_kv, T, d) → (T, H, d)."""
    out: torch.Tensor = _BlockAttention.apply(query, key, value, segments, scale)
    return out


def packed_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Segments,
    scale: float,
    dropout: float = 0.0,
) -> torch.Tensor:
    """query (H, T, d), key and value (H_kv, T, d) → (T, H, d)."""
    if query.device.type == "cpu" and dropout == 0.0 and longest(segments) <= LONGEST:
        return block_attention(query, key, value, segments, scale)
    if query.device.type == "cuda" and dropout == 0.0 and query.dtype in (torch.bfloat16, torch.float16):
        return _flash_attention(query, key, value, segments, scale)
    parts = [
        scaled_dot_product_attention(
            query[None, :, start:end],
            key[None, :, start:end],
            value[None, :, start:end],
            dropout_p=dropout,
            is_causal=True,
            scale=scale,
            enable_gqa=True,
        )[0]
        for start, end in segments
    ]
    return torch.cat(parts, dim=1).transpose(0, 1)


def _flash_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, scale: float
) -> torch.Tensor:
    edges = torch.tensor([0, *(end for _, end in segments)], dtype=torch.int32, device=query.device)
    most = longest(segments)
    query, key, value = (states.transpose(0, 1).contiguous() for states in (query, key, value))
    out: torch.Tensor = varlen_attn(  # type: ignore[assignment]  # without return_aux it is no tuple
        query,
        key,
        value,
        edges,
        edges,
        most,
        most,
        scale=scale,
        window_size=(-1, 0),  # causal
        enable_gqa=True,
    )
    return out


def longest(segments: Segments) -> int:
    return max(end - start for start, end in segments)


def _blocks(length: int) -> list[tuple[int, int]]:
    """Of about equal size, at most half as much again as ``BLOCK``."""
    count = max(1, round(length / BLOCK))
    edges = [length * place // count for place in range(count + 1)]
    return list(pairwise(edges))


def _by_key_head(states: torch.Tensor, keys: int) -> torch.Tensor:
    """(H, L, d) → (H_kv, H/H_kv · L, d)."""
    heads, length, size = states.shape
    return states.reshape(keys, heads // keys * length, size)


@lru_cache(maxsize=512)
def _mask(first: int, last: int, repeats: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """(repeats · (last − first), last) to add: −∞ where a query would see past itself."""
    own = torch.full((last - first, last), float("-inf"), device=device).triu(first + 1)
    return own.to(dtype).repeat(repeats, 1)
