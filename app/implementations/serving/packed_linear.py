"""Linear layers whose weights are laid out once for the matrix products of the fast path."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

_TYPICAL_ROWS = 16  # oneDNN chooses a layout for so many; any number of rows may be multiplied


class PackedLinear:
    """Several linear layers over one input, in one product: [rows, in] → [rows, sum of outs].

    In bf16, where oneDNN has its kernels, the weight is kept in oneDNN's own layout: a plain one is reordered at
    every call, which for a few rows takes longer than the product.
    """

    def __init__(self, layers: Sequence[torch.nn.Linear]) -> None:
        weight = torch.cat([layer.weight.detach() for layer in layers])
        self.dtype = weight.dtype
        self.outs = [layer.out_features for layer in layers]
        self.ins = layers[0].in_features
        self.norms = weight.float().pow(2).sum(1)  # [sum of outs]: squared, of each row; DoRA needs them
        self.bias: Tensor | None = None
        if any(layer.bias is not None for layer in layers):
            self.bias = torch.cat([_bias_of(layer) for layer in layers])
        self._weight = weight
        self._packed: Tensor | None = None
        if weight.dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, _TYPICAL_ROWS)
            self._weight = weight.new_empty(0)

    def __call__(self, rows: Tensor) -> Tensor:
        return self._multiply(rows, self.bias)

    def multiply(self, rows: Tensor) -> Tensor:
        """Without the bias; ``rows`` of any dtype."""
        return self._multiply(rows.to(self.dtype), None)

    def _multiply(self, rows: Tensor, bias: Tensor | None) -> Tensor:
        if self._packed is None:
            return functional.linear(rows, self._weight, bias)
        return torch.ops.mkldnn._linear_pointwise(rows, self._packed, bias, "none", [], "")


def _bias_of(layer: torch.nn.Linear) -> Tensor:
    if layer.bias is None:
        return torch.zeros(layer.out_features, dtype=layer.weight.dtype)
    return layer.bias.detach()
