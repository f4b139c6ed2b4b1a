"""Linear layers that read the same input, each with a LoRA update, as one: q, k, v; gate, up; and single ones.

For T tokens, n outputs in all and ranks R in all: one product with the frozen weights (n, in) side by side, one
with the A matrices stacked (R, in), one with the scaled B matrices on a block diagonal (n, R), added in place.
PEFT's own forward makes these for each layer apart, and keeps their intermediate results for the backward pass;
here only the input and A's outputs are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from app.implementations.models.lean_peft import LoraLinear
from app.implementations.models.memory import let_go
from app.implementations.training.kernels.frozen_product import FrozenProduct

ADAPTER = "default"


class _LoraGroup(torch.autograd.Function):
    """``parts``: (first output, rank, scale) of each adapted layer, whose A (r, in) and B (n_i, r) follow."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        product: FrozenProduct,
        parts: tuple[tuple[int, int, float], ...],
        *adapters: torch.Tensor,
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        down, up = torch.cat(adapters[0::2]), _block_diagonal(product.weight.shape[0], parts, adapters[1::2])
        hidden = flat @ down.t()
        out = product.outputs(flat).addmm_(hidden, up.t())
        ctx.save_for_backward(flat, hidden, down, up)
        ctx.product, ctx.parts, ctx.outputs = product, parts, [b.shape[0] for b in adapters[1::2]]
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, hidden, down, up = ctx.saved_tensors
        gradient = gradients[0].reshape(-1, up.shape[0])
        hidden_gradient = gradient @ up
        to_down = hidden_gradient.t() @ x
        to_up = hidden.t() @ gradient  # (R, n): of this, the blocks
        found: list[torch.Tensor | None] = []
        row = 0
        for (first, rank, scale), outputs in zip(ctx.parts, ctx.outputs, strict=True):
            block = to_up[row : row + rank, first : first + outputs]
            found += [to_down[row : row + rank], (block * scale).t()]
            row += rank
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = ctx.product.gradients(gradient).addmm_(hidden_gradient, down).view(*gradients[0].shape[:-1], -1)
        return to_x, None, None, *found


def _block_diagonal(
    outputs: int, parts: Sequence[tuple[int, int, float]], ups: Sequence[torch.Tensor]
) -> torch.Tensor:
    whole = ups[0].new_zeros(outputs, sum(rank for _, rank, _ in parts))
    column = 0
    for (first, rank, scale), up in zip(parts, ups, strict=True):
        torch.mul(up, scale, out=whole[first : first + up.shape[0], column : column + rank])
        column += rank
    return whole


@dataclass(slots=True)
class LoraGroup:
    """Its layers' frozen weights become views into one; nothing is held twice."""

    layers: Sequence[Any]
    product: FrozenProduct

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(…, in) → (…, n), the layers' outputs side by side."""
        parts, adapters, first = [], [], 0
        for layer in self.layers:
            a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            parts.append((first, a.shape[0], layer.scaling[ADAPTER]))
            adapters += [a, b]
            first += b.shape[0]
        out: torch.Tensor = _LoraGroup.apply(x, self.product, tuple(parts), *adapters)
        return out


def fits(layers: Sequence[Any]) -> bool:
    """PEFT's plain LoRA over plain frozen layers: no dropout, no DoRA, no quantised weights."""
    return all(
        type(layer) is LoraLinear
        and type(layer.base_layer) is nn.Linear
        and not layer.base_layer.weight.requires_grad
        and layer.active_adapters == [ADAPTER]
        and not layer.merged
        and not layer.use_dora.get(ADAPTER, False)
        and not layer.lora_bias.get(ADAPTER, False)
        and isinstance(layer.lora_dropout[ADAPTER], nn.Identity)
        for layer in layers
    )


def group(layers: Sequence[Any]) -> LoraGroup:
    bases = [layer.base_layer for layer in layers]
    weight = torch.cat([base.weight.data for base in bases]) if len(bases) > 1 else bases[0].weight.data
    biases = [base.bias for base in bases]
    bias = None
    if any(one is not None for one in biases):
        bias = torch.cat(
            [
                one.data if one is not None else base.weight.new_zeros(base.out_features)
                for one, base in zip(biases, bases, strict=True)
            ]
        )
    first = 0
    for base in bases:
        if len(bases) > 1:
            let_go(base.weight.data)
        base.weight.data = weight[first : first + base.out_features]
        first += base.out_features
    return LoraGroup(layers, FrozenProduct(weight, bias))
