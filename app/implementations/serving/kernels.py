"""What a forward pass does between its matrix products; there is a version in torch and a native one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.implementations.serving.kv_cache import Cached
from app.implementations.serving.lora_weights import AdapterWeights, Group


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a layer's attention. ``scale``: of the scores."""

    heads: int
    kv_heads: int
    size: int  # of a head
    scale: float


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of one sequence in a batch: rows ``start:end``, which come after ``cached.length`` others."""

    cached: Cached
    start: int
    end: int


class Attention(ABC):
    """Of one batch, for all layers."""

    @abstractmethod
    def __call__(self, layer: int, mixed: Tensor) -> Tensor:
        """Of queries, keys and values, [tokens, (heads + 2 kv_heads) * size], which it may overwrite; keys and
        values are kept. [tokens, heads * size]."""


class LoraBatch(ABC):
    """The adapters of one batch's tokens."""

    @abstractmethod
    def add(self, name: str, layer: int, rows: Tensor, out: Tensor, bias: Tensor | None) -> None:
        """To ``out``, [tokens, sum of outs], what the adapters make of ``rows``, [tokens, in]. ``bias``: what
        ``out`` holds of the layer's own."""


class LoraBank(ABC):
    """The adapters that batches use."""

    @abstractmethod
    def batch(self, adapters: Sequence[AdapterWeights | None]) -> LoraBatch | None:
        """For tokens of these adapters, one each; None if none has any."""

    @abstractmethod
    def forget(self, adapter: AdapterWeights) -> None:
        """It has been dropped."""


class Kernels(ABC):
    @abstractmethod
    def norm(self, rows: Tensor, more: Tensor | None, weight: Tensor, epsilon: float) -> Tensor:
        """Adds ``more`` to ``rows`` in place, and gives their RMSNorm (https://arxiv.org/abs/1910.07467)."""

    @abstractmethod
    def gate(self, both: Tensor) -> Tensor:
        """SwiGLU's product of the two halves of each row."""

    @abstractmethod
    def int8_linear(self, rows: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
        """``rows`` [rows, in] by a ``weight`` [outs, in] of int8, each of whose rows is to be scaled; float32
        ``scales`` [outs]."""

    @abstractmethod
    def attention(self, shape: Shape, spans: Sequence[Span], cos: Tensor, sin: Tensor) -> Attention:
        """``cos``, ``sin``: of the tokens' positions, [tokens, half a head]."""

    @abstractmethod
    def lora_bank(self, groups: Mapping[str, Group], dtype: torch.dtype) -> LoraBank: ...
