"""The kernels in torch, for every CPU and precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from app.implementations.serving.kernels import Attention, Kernels, LoraBank, Shape, Span
from app.implementations.serving.kv_cache import Slab
from app.implementations.serving.lora_bank import TorchLoraBank
from app.implementations.serving.lora_weights import Group


class TorchKernels(Kernels):
    def norm(self, rows: Tensor, more: Tensor | None, weight: Tensor, epsilon: float) -> Tensor:
        if more is not None:
            rows += more
        return functional.rms_norm(rows, (rows.shape[1],), weight, epsilon)

    def gate(self, both: Tensor) -> Tensor:
        gate, up = both.chunk(2, dim=1)
        return functional.silu(gate) * up

    def int8_linear(self, rows: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
        out = functional.linear(rows, weight.to(rows.dtype)).mul_(scales)
        return out if bias is None else out.add_(bias)

    def attention(self, shape: Shape, spans: Sequence[Span], cos: Tensor, sin: Tensor) -> Attention:
        return TorchAttention(shape, spans, cos, sin)

    def lora_bank(self, groups: Mapping[str, Group], dtype: torch.dtype) -> LoraBank:
        return TorchLoraBank(groups, dtype)


@dataclass(frozen=True, slots=True)
class _Single:
    """Sequences of one slab that read one token each: their batched attention covers places ``low:high``."""

    slab: Slab
    low: int
    high: int
    rows: Tensor  # of the batch, one for each place; row 0 where a place is another's
    mask: Tensor  # [places × key/value heads, 1, tokens], added to the scores
    places: Tensor  # of the sequences
    positions: Tensor
    of_sequences: Tensor  # the sequences' rows of the batch


class TorchAttention(Attention):
    """Sequences of one slab that read a single token attend in one batched product, longer spans one by one."""

    def __init__(self, shape: Shape, spans: Sequence[Span], cos: Tensor, sin: Tensor) -> None:
        self._shape = shape
        self._cos, self._sin = cos[:, None], sin[:, None]
        self._singles = [self._single(group) for group in _by_slab([s for s in spans if s.end - s.start == 1])]
        self._longer = [(span, _causal_mask(span)) for span in spans if span.end - span.start > 1]

    def __call__(self, layer: int, mixed: Tensor) -> Tensor:
        shape = self._shape
        heads = mixed.view(len(mixed), -1, shape.size)
        turning = shape.heads + shape.kv_heads
        first, second = heads[:, :turning].chunk(2, dim=2)
        cos, sin = self._cos, self._sin
        turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=2)
        values = heads[:, turning:]
        attended = torch.empty(len(mixed), shape.heads, shape.size, dtype=mixed.dtype)
        for single in self._singles:
            self._together(layer, single, turned, values, attended)
        for span, mask in self._longer:
            rows = slice(span.start, span.end)
            self._keep(layer, span, turned[rows, shape.heads :], values[rows])
            attended[rows] = _attend_span(layer, shape, span, mask, turned[rows, : shape.heads])
        return attended.view(len(mixed), -1)

    def _single(self, spans: Sequence[Span]) -> _Single:
        slab = spans[0].cached.slab
        assert slab is not None
        places = torch.tensor([span.cached.place for span in spans])
        positions = torch.tensor([span.cached.length for span in spans])
        of_sequences = torch.tensor([span.start for span in spans])
        low, high = int(places.min()), int(places.max()) + 1
        rows = torch.zeros(high - low, dtype=torch.int64)
        rows[places - low] = of_sequences
        seen = torch.zeros(high - low, dtype=torch.int64)
        seen[places - low] = positions
        mask = torch.zeros(high - low, 1, int(positions.max()) + 1, dtype=self._cos.dtype)
        mask.masked_fill_(torch.arange(mask.shape[2]) > seen[:, None, None], -torch.inf)
        mask = mask.repeat_interleave(self._shape.kv_heads, dim=0)
        return _Single(slab, low, high, rows, mask, places, positions, of_sequences)

    def _together(self, layer: int, single: _Single, turned: Tensor, values: Tensor, attended: Tensor) -> None:
        shape = self._shape
        keys, kept = single.slab.keys[layer], single.slab.values[layer]
        keys[single.places, :, single.positions] = turned[single.of_sequences, shape.heads :]
        kept[single.places, :, single.positions] = values[single.of_sequences]
        tokens = single.mask.shape[2]
        batch = (single.high - single.low) * shape.kv_heads
        near = keys[single.low : single.high].view(batch, -1, shape.size)[:, :tokens]
        far = kept[single.low : single.high].view(batch, -1, shape.size)[:, :tokens]
        asked = turned[single.rows, : shape.heads].view(batch, -1, shape.size)
        scores = torch.baddbmm(single.mask, asked, near.transpose(1, 2), alpha=shape.scale)
        shares = torch.softmax(scores, dim=2, dtype=torch.float32).to(far.dtype)
        found = torch.bmm(shares, far).view(-1, shape.heads, shape.size)
        attended[single.of_sequences] = found[single.places - single.low]

    def _keep(self, layer: int, span: Span, keys: Tensor, values: Tensor) -> None:
        cached = span.cached
        assert cached.slab is not None
        kept = slice(cached.length, cached.length + span.end - span.start)
        cached.slab.keys[layer, cached.place, :, kept] = keys.transpose(0, 1)
        cached.slab.values[layer, cached.place, :, kept] = values.transpose(0, 1)


def _by_slab(spans: Sequence[Span]) -> list[list[Span]]:
    groups: dict[int, list[Span]] = {}
    for span in spans:
        groups.setdefault(id(span.cached.slab), []).append(span)
    return list(groups.values())


def _attend_span(layer: int, shape: Shape, span: Span, mask: Tensor | None, queries: Tensor) -> Tensor:
    """Causal attention of one span, whose keys and values are in its cache; [its tokens, heads, size] as
    ``queries``. ``mask``: as ``_causal_mask`` gave it."""
    cached, new = span.cached, span.end - span.start
    assert cached.slab is not None
    keys, values = cached.slab.keys[layer, cached.place], cached.slab.values[layer, cached.place]
    # Queries that share keys as a batch of their own; without copies of the keys.
    asked = queries.transpose(0, 1).reshape(shape.kv_heads, -1, new, shape.size)
    seen = cached.length + new
    wide = shape.kv_heads, asked.shape[1], seen, shape.size
    found = functional.scaled_dot_product_attention(
        asked,
        keys[:, None, :seen].expand(wide),
        values[:, None, :seen].expand(wide),
        attn_mask=mask,
        is_causal=mask is None,
        scale=shape.scale,
    )
    return found.reshape(shape.heads, new, shape.size).transpose(0, 1)


def _causal_mask(span: Span) -> Tensor | None:
    """Which of the tokens so far each of the span's sees; None: those of the span up to itself."""
    before, new = span.cached.length, span.end - span.start
    if not before:
        return None
    return torch.arange(before + new) <= before + torch.arange(new)[:, None]
