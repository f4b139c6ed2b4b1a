"""The Llama and Qwen2 families' forward pass for a batch of sequences, without autograd and with own caches.

The architecture is that of Llama (https://arxiv.org/abs/2302.13971): RMSNorm before each half of a layer, rotary
positions, grouped-query attention, SwiGLU. Qwen2 adds a bias to queries, keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from app.implementations.serving.kernels import Kernels, LoraBatch, Shape, Span
from app.implementations.serving.kv_cache import KvCache
from app.implementations.serving.lora_weights import Group
from app.implementations.serving.packed_linear import Int8Linear, PackedLinear, Product

# The modules of a layer that share an input, in the order of their products.
GROUPS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
Make = Callable[[Sequence[torch.nn.Linear]], Product]
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
    products: dict[str, Product]  # by the names of GROUPS
    before_attention: Tensor  # norms' weights
    before_mlp: Tensor


class Decoder:
    """``network``: transformers' model for causal language modelling, whose weights it takes over.

    ``int8``: its linear layers in 8 bits."""

    def __init__(self, network: Any, kernels: Kernels, int8: bool) -> None:
        config = network.config
        trunk = network.model
        first = trunk.layers[0].self_attn
        self.shape = Shape(config.num_attention_heads, config.num_key_value_heads, first.head_dim, first.scaling)
        self.dtype = trunk.embed_tokens.weight.dtype
        self._kernels = kernels
        self._epsilon = config.rms_norm_eps
        self._embedding = trunk.embed_tokens.weight.detach()
        self._norm = trunk.norm.weight.detach()
        self._rotary = trunk.rotary_emb
        self._angles = torch.empty(2, 0, self.shape.size // 2, dtype=self.dtype)
        make: Make = partial(Int8Linear, kernels=kernels) if int8 else PackedLinear
        self.layers = [_take_over(layer, make) for layer in trunk.layers]
        self.head = make([network.lm_head])

    @property
    def groups(self) -> dict[str, Group]:
        """What an adapter can add to."""
        first = self.layers[0].products
        return {name: Group(len(self.layers), p.ins, tuple(p.outs)) for name, p in first.items()}

    def new_cache(self, budget: int) -> KvCache:
        return KvCache(len(self.layers), self.shape.kv_heads, self.shape.size, self.dtype, budget)

    @torch.inference_mode()
    def forward(self, ids: Tensor, spans: Sequence[Span], wanted: Sequence[int], lora: LoraBatch | None) -> Tensor:
        """Logits, float32 [wanted rows, vocabulary]. Room for the spans' tokens is reserved; the caches' lengths
        are the caller's to move on."""
        kernels, epsilon = self._kernels, self._epsilon
        positions = torch.cat([torch.arange(s.end - s.start) + s.cached.length for s in spans])
        attention = kernels.attention(self.shape, spans, *self._rotation(positions))
        rows, more = self._embedding[ids], None
        for number, layer in enumerate(self.layers):
            product = _adapted(layer.products, number, lora)
            mixed = product("qkv", kernels.norm(rows, more, layer.before_attention, epsilon))
            more = product("o", attention(number, mixed))
            both = product("gate_up", kernels.norm(rows, more, layer.before_mlp, epsilon))
            more = product("down", kernels.gate(both))
        if not wanted:
            return torch.empty(0, self._embedding.shape[0])
        last = torch.tensor(wanted)
        assert more is not None
        return self.head(kernels.norm(rows[last], more[last], self._norm, epsilon)).float()

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines, [tokens, half a head] each."""
        while int(positions.max()) >= self._angles.shape[1]:
            start = self._angles.shape[1]
            step = torch.arange(start, start + _ROTARY_STEP)[None]
            cos, sin = self._rotary(torch.empty(1, dtype=self.dtype), step)
            half = torch.stack([cos[0], sin[0]])[:, :, : self.shape.size // 2]
            self._angles = torch.cat([self._angles, half], dim=1)
        cos, sin = self._angles[:, positions]
        return cos, sin


def _adapted(products: dict[str, Product], layer: int, lora: LoraBatch | None) -> Callable[[str, Tensor], Tensor]:
    def product(name: str, rows: Tensor) -> Tensor:
        packed = products[name]
        out = packed(rows)
        if lora is not None:
            lora.add(name, layer, rows, out, packed.bias)
        return out

    return product


def _take_over(layer: Any, make: Make) -> Layer:
    """Its weights, which the network then lacks: packed ones are copies."""
    products = {}
    for name, modules in GROUPS.items():
        found = [layer.get_submodule(module) for module in modules]
        products[name] = make(found)
        for module in found:
            module.weight = None
    return Layer(products, layer.input_layernorm.weight.detach(), layer.post_attention_layernorm.weight.detach())
