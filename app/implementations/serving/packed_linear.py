"""Linear layers whose weights are laid out once for the matrix products of the fast path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from app.implementations.serving.kernels import Kernels

_TYPICAL_ROWS = 16  # oneDNN chooses a layout for so many; any number of rows may be multiplied


class Product(ABC):
    """Several linear layers over one input, in one product: [rows, in] → [rows, sum of outs].

    ``norms``: squared, of each row of the weight [sum of outs, in]; DoRA needs them.
    """

    def __init__(self, layers: Sequence[torch.nn.Linear]) -> None:
        self.dtype = layers[0].weight.dtype
        self.outs = [layer.out_features for layer in layers]
        self.ins = layers[0].in_features
        self.bias: Tensor | None = None
        if any(layer.bias is not None for layer in layers):
            self.bias = torch.cat([_bias_of(layer) for layer in layers])
        self.norms = torch.empty(0)

    def __call__(self, rows: Tensor) -> Tensor:
        return self._multiply(rows, self.bias)

    def multiply(self, rows: Tensor) -> Tensor:
        """Without the bias; ``rows`` of any dtype."""
        return self._multiply(rows.to(self.dtype), None)

    @abstractmethod
    def _multiply(self, rows: Tensor, bias: Tensor | None) -> Tensor: ...


class PackedLinear(Product):
    """In bf16, where oneDNN has its kernels, the weight is kept in oneDNN's own layout: a plain one is reordered
    at every call, which for a few rows takes longer than the product."""

    def __init__(self, layers: Sequence[torch.nn.Linear]) -> None:
        super().__init__(layers)
        weight = torch.cat([layer.weight.detach() for layer in layers])
        self.norms = weight.float().pow(2).sum(1)
        self._weight = weight
        self._packed: Tensor | None = None
        if weight.dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, _TYPICAL_ROWS)
            self._weight = weight.new_empty(0)

    def _multiply(self, rows: Tensor, bias: Tensor | None) -> Tensor:
        if self._packed is None:
            return functional.linear(rows, self._weight, bias)
        return torch.ops.mkldnn._linear_pointwise(rows, self._packed, bias, "none", [], "")


class Int8Linear(Product):
    """Each row of the weight in 8 bits, with a scale of its own; what it is multiplied with keeps its precision
    (weight-only quantization, as in LLM.int8(), https://arxiv.org/abs/2208.07339, without its outliers)."""

    def __init__(self, layers: Sequence[torch.nn.Linear], kernels: Kernels) -> None:
        super().__init__(layers)
        weight = torch.cat([layer.weight.detach() for layer in layers]).float()
        self._scales = weight.abs().amax(1).clamp_min(1e-12) / 127
        self._weight = (weight / self._scales[:, None]).round().to(torch.int8)
        self.norms = (self._weight.float() * self._scales[:, None]).pow(2).sum(1)
        self._kernels = kernels

    def _multiply(self, rows: Tensor, bias: Tensor | None) -> Tensor:
        return self._kernels.int8_linear(rows, self._weight, self._scales, bias)


def _bias_of(layer: torch.nn.Linear) -> Tensor:
    if layer.bias is None:
        return torch.zeros(layer.out_features, dtype=layer.weight.dtype)
    return layer.bias.detach()
