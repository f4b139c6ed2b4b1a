"""The Llama and Qwen2 families' forward pass for a batch of sequences, without autograd and with own caches.

The architecture is that of Llama (https://arxiv.org/abs/2302.13971): RMSNorm before each half of a layer, rotary
positions, grouped-query attention, SwiGLU. Qwen2 adds a bias to queries, keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from app.implementations.serving.kv_cache import Cached, KvCache, Slab
from app.implementations.serving.lora_bank import Group, LoraBatch
from app.implementations.serving.packed_linear import PackedLinear

# The modules of a layer that share an input, in the order of their products.
GROUPS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
_ROTARY_STEP = 1024  # positions whose angles are computed at once
_FAMILIES = ("llama", "qwen2")
_FIXED_ROTARY = ("default", "linear", "llama3", "yarn")  # others depend on the length of the sequence


def fits(config: Any) -> bool:
    """Whether the network of this transformers config is one that ``Decoder`` computes."""
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    rotary = getattr(config, "rope_parameters", None) or {}
    return (
        config.model_type in _FAMILIES
        and config.hidden_act == "silu"
        and set(kinds) == {"full_attention"}
        and rotary.get("rope_type", "default") in _FIXED_ROTARY
        and getattr(config, "pretraining_tp", 1) == 1
    )


@dataclass(frozen=True, slots=True)
class Layer:
    products: dict[str, PackedLinear]  # by the names of GROUPS
    before_attention: Tensor  # norms' weights
    before_mlp: Tensor


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of one sequence in a batch: rows ``start:end``, which come after ``cached.length`` others."""

    cached: Cached
    start: int
    end: int


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


class Decoder:
    """``network``: transformers' model for causal language modelling, whose weights it takes over."""

    def __init__(self, network: Any) -> None:
        config = network.config
        trunk = network.model
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.size = trunk.layers[0].self_attn.head_dim
        self.dtype = trunk.embed_tokens.weight.dtype
        self._epsilon = config.rms_norm_eps
        self._scale = trunk.layers[0].self_attn.scaling
        self._embedding = trunk.embed_tokens.weight.detach()
        self._norm = trunk.norm.weight.detach()
        self._rotary = trunk.rotary_emb
        self._angles = torch.empty(2, 0, self.size // 2, dtype=self.dtype)
        self.layers = [_take_over(layer) for layer in trunk.layers]
        self.head = PackedLinear([network.lm_head])

    @property
    def groups(self) -> dict[str, Group]:
        """What an adapter can add to."""
        first = self.layers[0].products
        return {name: Group(len(self.layers), p.ins, tuple(p.outs)) for name, p in first.items()}

    def new_cache(self, budget: int) -> KvCache:
        return KvCache(len(self.layers), self.kv_heads, self.size, self.dtype, budget)

    @torch.inference_mode()
    def forward(self, ids: Tensor, spans: Sequence[Span], wanted: Sequence[int], lora: LoraBatch | None) -> Tensor:
        """Logits, float32 [wanted rows, vocabulary]. Room for the spans' tokens is reserved; the caches' lengths
        are the caller's to move on."""
        positions = torch.cat([torch.arange(s.end - s.start) + s.cached.length for s in spans])
        cos, sin = self._rotation(positions)
        singles = [self._single(group) for group in _by_slab([s for s in spans if s.end - s.start == 1])]
        longer = [span for span in spans if span.end - span.start > 1]
        masks = [self._causal(span) for span in longer]
        rows = self._embedding[ids]
        for number, layer in enumerate(self.layers):
            product = _adapted(layer.products, number, lora)
            mixed = product("qkv", self._normed(rows, layer.before_attention))
            turned, values = self._split(mixed, cos, sin)
            attended = torch.empty(len(rows), self.heads, self.size, dtype=self.dtype)
            for single in singles:
                self._attend_together(number, single, turned, values, attended)
            for span, mask in zip(longer, masks, strict=True):
                self._attend_alone(number, span, mask, turned, values, attended)
            rows = rows + product("o", attended.view(len(rows), -1))
            both = product("gate_up", self._normed(rows, layer.before_mlp))
            gate, up = both.chunk(2, dim=1)
            rows = rows + product("down", functional.silu(gate) * up)
        if not wanted:
            return torch.empty(0, self._embedding.shape[0])
        return self.head(self._normed(rows[torch.tensor(wanted)], self._norm)).float()

    def _normed(self, rows: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(rows, (rows.shape[1],), weight, self._epsilon)

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, [tokens, 1, half a head] each."""
        while int(positions.max()) >= self._angles.shape[1]:
            start = self._angles.shape[1]
            step = torch.arange(start, start + _ROTARY_STEP)[None]
            cos, sin = self._rotary(torch.empty(1, dtype=self.dtype), step)
            half = torch.stack([cos[0], sin[0]])[:, :, : self.size // 2]
            self._angles = torch.cat([self._angles, half], dim=1)
        cos, sin = self._angles[:, positions, None]
        return cos, sin

    def _split(self, mixed: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """[tokens, heads, size]: those of queries and then keys, turned, and those of values."""
        heads = mixed.view(len(mixed), -1, self.size)
        turning = self.heads + self.kv_heads
        first, second = heads[:, :turning].chunk(2, dim=2)
        turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=2)
        return turned, heads[:, turning:]

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
        mask = torch.zeros(high - low, 1, int(positions.max()) + 1, dtype=self.dtype)
        mask.masked_fill_(torch.arange(mask.shape[2]) > seen[:, None, None], -torch.inf)
        mask = mask.repeat_interleave(self.kv_heads, dim=0)
        return _Single(slab, low, high, rows, mask, places, positions, of_sequences)

    def _attend_together(
        self, layer: int, single: _Single, turned: Tensor, values: Tensor, attended: Tensor
    ) -> None:
        keys, kept = single.slab.keys[layer], single.slab.values[layer]
        keys[single.places, :, single.positions] = turned[single.of_sequences, self.heads :]
        kept[single.places, :, single.positions] = values[single.of_sequences]
        tokens = single.mask.shape[2]
        batch = (single.high - single.low) * self.kv_heads
        near = keys[single.low : single.high].view(batch, -1, self.size)[:, :tokens]
        far = kept[single.low : single.high].view(batch, -1, self.size)[:, :tokens]
        asked = turned[single.rows, : self.heads].view(batch, -1, self.size)
        scores = torch.baddbmm(single.mask, asked, near.transpose(1, 2), alpha=self._scale)
        shares = torch.softmax(scores, dim=2, dtype=torch.float32).to(self.dtype)
        found = torch.bmm(shares, far).view(-1, self.heads, self.size)
        attended[single.of_sequences] = found[single.places - single.low]

    def _causal(self, span: Span) -> Tensor | None:
        """Which of the tokens so far each of the span's sees; None: those of the span up to itself."""
        before, new = span.cached.length, span.end - span.start
        if not before:
            return None
        return torch.arange(before + new) <= before + torch.arange(new)[:, None]

    def _attend_alone(
        self, layer: int, span: Span, mask: Tensor | None, turned: Tensor, values: Tensor, attended: Tensor
    ) -> None:
        cached = span.cached
        assert cached.slab is not None
        rows, kept = slice(span.start, span.end), slice(cached.length, cached.length + span.end - span.start)
        keys, known = cached.slab.keys[layer, cached.place], cached.slab.values[layer, cached.place]
        keys[:, kept] = turned[rows, self.heads :].transpose(0, 1)
        known[:, kept] = values[rows].transpose(0, 1)
        # Queries that share keys as a batch of their own; without copies of the keys.
        asked = (
            turned[rows, : self.heads].transpose(0, 1).reshape(self.kv_heads, -1, span.end - span.start, self.size)
        )
        shape = self.kv_heads, asked.shape[1], kept.stop, self.size
        found = functional.scaled_dot_product_attention(
            asked,
            keys[:, None, : kept.stop].expand(shape),
            known[:, None, : kept.stop].expand(shape),
            attn_mask=mask,
            is_causal=mask is None,
            scale=self._scale,
        )
        attended[rows] = found.reshape(self.heads, -1, self.size).transpose(0, 1)


def _adapted(
    products: dict[str, PackedLinear], layer: int, lora: LoraBatch | None
) -> Callable[[str, Tensor], Tensor]:
    def product(name: str, rows: Tensor) -> Tensor:
        packed = products[name]
        out = packed(rows)
        if lora is not None:
            lora.add(name, layer, rows, out, packed.bias)
        return out

    return product


def _take_over(layer: Any) -> Layer:
    """Its weights, which the network then lacks: packed ones are copies."""
    products = {}
    for name, modules in GROUPS.items():
        found = [layer.get_submodule(module) for module in modules]
        products[name] = PackedLinear(found)
        for module in found:
            module.weight = None
    return Layer(products, layer.input_layernorm.weight.detach(), layer.post_attention_layernorm.weight.detach())


def _by_slab(spans: Sequence[Span]) -> list[list[Span]]:
    groups: dict[int, list[Span]] = {}
    for span in spans:
        groups.setdefault(id(span.cached.slab), []).append(span)
    return list(groups.values())
