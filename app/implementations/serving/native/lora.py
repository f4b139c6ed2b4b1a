"""Adapters of a batch through kernels.cpp: each is read once, where it lies, for all of its tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from app.implementations.serving.kernels import LoraBank, LoraBatch
from app.implementations.serving.lora_weights import AdapterWeights, Group, Refinements, refine, refinements


class NativeLoraBank(LoraBank):
    def __init__(self, groups: Mapping[str, Group], function: Callable[..., None]) -> None:
        self._groups = groups
        self._function = function
        self._widths = {name: torch.tensor(group.outs) for name, group in groups.items()}

    def batch(self, adapters: Sequence[AdapterWeights | None]) -> LoraBatch | None:
        of_adapters: dict[AdapterWeights, list[int]] = {}
        for token, adapter in enumerate(adapters):
            if adapter is not None:
                of_adapters.setdefault(adapter, []).append(token)
        if not of_adapters:
            return None
        parts = {
            name: _parts(name, of_adapters) for name in self._groups if any(name in a.parts for a in of_adapters)
        }
        tokens = torch.tensor([token for found in of_adapters.values() for token in found])
        rank = max(adapter.rank for adapter in of_adapters)
        hidden = torch.empty(len(tokens) * rank * max(len(group.outs) for group in self._groups.values()))
        particular = refinements(adapters)
        return NativeLoraBatch(self._groups, self._function, self._widths, parts, tokens, hidden, rank, particular)

    def forget(self, adapter: AdapterWeights) -> None:
        pass


@dataclass(frozen=True, slots=True)
class NativeLoraBatch(LoraBatch):
    """``parts``: by group, kernels.cpp's ``Part`` of each adapter; ``hidden``: room for the products between."""

    groups: Mapping[str, Group]
    function: Callable[..., None]
    widths: Mapping[str, Tensor]
    parts: Mapping[str, Tensor]
    tokens: Tensor
    hidden: Tensor
    rank: int
    refinements: Refinements

    def add(self, name: str, layer: int, rows: Tensor, out: Tensor, bias: Tensor | None) -> None:
        group = self.groups[name]
        if (parts := self.parts.get(name)) is not None:
            sizes = len(parts), len(group.outs), group.ins, out.shape[1]
            pointers = rows.data_ptr(), out.data_ptr(), parts.data_ptr(), self.tokens.data_ptr()
            widths = self.widths[name].data_ptr()
            self.function(*pointers, widths, layer, *sizes, self.hidden.data_ptr(), self.rank)
        refine(self.refinements, name, group, layer, out, bias)


def _parts(name: str, tokens: Mapping[AdapterWeights, Sequence[int]]) -> Tensor:
    ends = accumulate(len(found) for found in tokens.values())
    parts = []
    for (adapter, found), end in zip(tokens.items(), ends, strict=True):
        part = adapter.parts.get(name)
        down, up = (0, 0) if part is None else (part.down.data_ptr(), part.up.data_ptr())
        parts.append((down, up, adapter.rank, end - len(found), end))
    return torch.tensor(parts)
