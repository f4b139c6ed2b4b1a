"""The kernels of kernels.cpp, for contiguous rows of one precision."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from app.implementations.serving.kernels import Attention, Kernels, LoraBank, Shape, Span
from app.implementations.serving.lora_weights import Group
from app.implementations.serving.native.lora import NativeLoraBank
from app.implementations.serving.torch_kernels import TorchKernels

FEW = 32  # tokens of a span; with more, torch's own attention is faster
FEW_PRODUCTS = 16  # rows; with more, int8 weights are better made bf16 and multiplied so
_POINTER, _INTEGER, _REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_ARGUMENTS: Mapping[str, list[Any]] = {
    "norm": [_POINTER] * 4 + [_INTEGER] * 2 + [_REAL],
    "gate": [_POINTER] * 2 + [_INTEGER] * 2,
    "int8_linear": [_POINTER] * 5 + [_INTEGER] * 3,
    "store": [_POINTER] * 4 + [_INTEGER] * 5,
    "attend": [_POINTER] * 4 + [_INTEGER] * 5 + [_REAL],
    "causal": [_POINTER] + [_INTEGER] * 3 + [_REAL],
    "lora": [_POINTER] * 5 + [_INTEGER] * 5 + [_POINTER, _INTEGER],
}
Functions = Mapping[str, Callable[..., None]]


class NativeKernels(Kernels):
    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self._call: Functions = {
            name: _function(library, f"{name}_{str(dtype).removeprefix('torch.')}", arguments)
            for name, arguments in _ARGUMENTS.items()
        }
        self._torch = TorchKernels()

    def norm(self, rows: Tensor, more: Tensor | None, weight: Tensor, epsilon: float) -> Tensor:
        out = torch.empty_like(rows)
        added = None if more is None else more.data_ptr()
        self._call["norm"](rows.data_ptr(), added, weight.data_ptr(), out.data_ptr(), *rows.shape, epsilon)
        return out

    def gate(self, both: Tensor) -> Tensor:
        count, size = both.shape[0], both.shape[1] // 2
        out = both.new_empty(count, size)
        self._call["gate"](both.data_ptr(), out.data_ptr(), count, size)
        return out

    def int8_linear(self, rows: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
        count, outs = len(rows), len(weight)
        if count > FEW_PRODUCTS:
            return self._torch.int8_linear(rows, weight, scales, bias)
        out = rows.new_empty(count, outs)
        added = None if bias is None else bias.data_ptr()
        pointers = rows.data_ptr(), weight.data_ptr(), scales.data_ptr(), added, out.data_ptr()
        self._call["int8_linear"](*pointers, count, rows.shape[1], outs)
        return out

    def attention(self, shape: Shape, spans: Sequence[Span], cos: Tensor, sin: Tensor) -> Attention:
        return NativeAttention(self._call, shape, spans, cos, sin)

    def lora_bank(self, groups: Mapping[str, Group], dtype: torch.dtype) -> LoraBank:
        return NativeLoraBank(groups, self._call["lora"])


class NativeAttention(Attention):
    """Row by row where a span has few of them, else in torch."""

    def __init__(self, call: Functions, shape: Shape, spans: Sequence[Span], cos: Tensor, sin: Tensor) -> None:
        self._call = call
        self._shape = shape
        self._cos, self._sin = cos.contiguous(), sin.contiguous()
        self._places = torch.tensor([place for span in spans for place in _places(span)])
        few = [row for s in spans if s.end - s.start <= FEW for row in range(s.start, s.end)]
        self._few = torch.tensor(few, dtype=torch.int64)
        self._longer = [span for span in spans if span.end - span.start > FEW]

    def __call__(self, layer: int, mixed: Tensor) -> Tensor:
        shape, places = self._shape, self._places.data_ptr()
        sizes = shape.heads, shape.kv_heads, shape.size
        angles = self._cos.data_ptr(), self._sin.data_ptr()
        self._call["store"](mixed.data_ptr(), *angles, places, layer, len(mixed), *sizes)
        out = mixed.new_empty(len(mixed), shape.heads * shape.size)
        if few := len(self._few):
            pointers = mixed.data_ptr(), out.data_ptr(), places, self._few.data_ptr()
            self._call["attend"](*pointers, layer, few, *sizes, shape.scale)
        if self._longer:
            queries = mixed.view(len(mixed), -1, shape.size)[:, : shape.heads]
            found = out.view(len(mixed), shape.heads, shape.size)
            for span in self._longer:
                found[span.start : span.end] = self._attend_span(layer, span, queries[span.start : span.end])
        return out

    def _attend_span(self, layer: int, span: Span, queries: Tensor) -> Tensor:
        shape, before, new = self._shape, span.cached.length, span.end - span.start
        slab, place = span.cached.slab, span.cached.place
        assert slab is not None
        keys, values = (kept[layer, place, :, : before + new] for kept in (slab.keys, slab.values))
        asked = queries.transpose(0, 1).reshape(shape.kv_heads, -1, shape.size)
        scores = torch.bmm(asked, keys.transpose(1, 2))
        self._call["causal"](scores.data_ptr(), shape.heads * new, new, before, shape.scale)
        return torch.bmm(scores, values).view(shape.heads, new, shape.size).transpose(0, 1)


def _places(span: Span) -> list[tuple[int, int, int, int, int]]:
    """Of its tokens, as kernels.cpp's ``Place``."""
    cached = span.cached
    slab = cached.slab
    assert slab is not None
    keys, values = (kept[0, cached.place].data_ptr() for kept in (slab.keys, slab.values))
    layer_bytes = slab.keys.stride(0) * slab.keys.itemsize
    positions = range(cached.length, cached.length + span.end - span.start)
    return [(keys, values, layer_bytes, slab.tokens, position) for position in positions]


def _function(library: ctypes.CDLL, name: str, arguments: list[Any]) -> Callable[..., None]:
    function = library[name]
    function.argtypes = arguments
    function.restype = None
    return function
