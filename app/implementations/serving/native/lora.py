"""Adapters of a batch through kernels.cpp: each is read once, where it lies, for all of its tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch
from torch import Tensor

from app.implementations.serving.kernels import LoraBank, LoraBatch
from app.implementations.serving.lora_weights import AdapterWeights, Group, Refinements, refine, refinements

FEW = 24  # tokens in a row with one adapter; with more, torch's products are faster


class NativeLoraBank(LoraBank):
    def __init__(self, groups: Mapping[str, Group], function: Callable[..., None]) -> None:
        self._groups = groups
        self._function = function
        self._widths = {name: torch.tensor(group.outs) for name, group in groups.items()}

    def batch(self, adapters: Sequence[AdapterWeights | None]) -> LoraBatch | None:
        long: list[tuple[AdapterWeights, slice]] = []
        few: dict[AdapterWeights, list[int]] = {}
        start = 0
        for adapter, run in groupby(adapters):
            end = start + sum(1 for _ in run)
            if adapter is not None and end - start > FEW:
                long.append((adapter, slice(start, end)))
            elif adapter is not None:
                few.setdefault(adapter, []).extend(range(start, end))
            start = end
        if not long and not few:
            return None
        parts = {name: _parts(name, few) for name in self._groups if any(name in a.parts for a in few)}
        tokens = torch.tensor([token for found in few.values() for token in found], dtype=torch.int64)
        rank = max((adapter.rank for adapter in few), default=0)
        most = max(len(group.outs) for group in self._groups.values())
        hidden = torch.empty(len(tokens) * rank * most)
        return NativeLoraBatch(
            self._groups, self._function, self._widths, long, parts, tokens, hidden, rank, refinements(adapters)
        )

    def forget(self, adapter: AdapterWeights) -> None:
        pass


@dataclass(frozen=True, slots=True)
class NativeLoraBatch(LoraBatch):
    """``parts``: by group, kernels.cpp's ``Part`` of each adapter; ``hidden``: room for the products between."""

    groups: Mapping[str, Group]
    function: Callable[..., None]
    widths: Mapping[str, Tensor]
    long: Sequence[tuple[AdapterWeights, slice]]
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
        for adapter, span in self.long:
            if (part := adapter.parts.get(name)) is not None:
                down, ups = part.down[layer], part.up[layer].split(group.outs, dim=1)
                hidden = torch.mm(rows[span], down.view(-1, group.ins).t()).view(-1, adapter.rank, len(ups))
                for module, (columns, up) in enumerate(zip(out[span].split(group.outs, dim=1), ups, strict=True)):
                    columns.addmm_(hidden[:, :, module], up)
        refine(self.refinements, name, group, layer, out, bias)


def _parts(name: str, tokens: Mapping[AdapterWeights, Sequence[int]]) -> Tensor:
    ends = accumulate(len(found) for found in tokens.values())
    parts = []
    for (adapter, found), end in zip(tokens.items(), ends, strict=True):
        part = adapter.parts.get(name)
        down, up = (0, 0) if part is None else (part.down.data_ptr(), part.up.data_ptr())
        parts.append((down, up, adapter.rank, end - len(found), end))
    return torch.tensor(parts)
