"""The adapters of a batch, side by side: one pair of matrix products serves all of them in each layer.

Every adapter holds a range of the bank's rows, as many as its largest rank. A token's hidden values are multiplied
with all rows, and what is not of its own adapter is put to zero before the second product. On GPUs the adapters'
weights are gathered instead (Punica, https://arxiv.org/abs/2310.18547); on a CPU reading them is what takes time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from app.implementations.serving.kernels import LoraBank, LoraBatch
from app.implementations.serving.lora_weights import AdapterWeights, Group, Refinements, refine, refinements


class TorchLoraBank(LoraBank):
    def __init__(self, groups: Mapping[str, Group], dtype: torch.dtype) -> None:
        self._groups = groups
        self._dtype = dtype
        self._starts: dict[AdapterWeights, int] = {}
        self._rows = 0
        self._down: dict[str, Tensor] = {}  # [layers, rows, modules, in]
        self._up: dict[str, list[Tensor]] = {}  # of each module [layers, rows, out]

    def batch(self, adapters: Sequence[AdapterWeights | None]) -> LoraBatch | None:
        needed = dict.fromkeys(adapter for adapter in adapters if adapter is not None)
        if not needed:
            return None
        self._make_room(needed)
        rows = max(self._starts[adapter] + adapter.rank for adapter in needed)
        numbers = {adapter: number for number, adapter in enumerate(needed, 1)}
        owners = torch.zeros(rows, dtype=torch.int32)
        for adapter, number in numbers.items():
            start = self._starts[adapter]
            owners[start : start + adapter.rank] = number
        of_tokens = torch.tensor([0 if a is None else numbers[a] for a in adapters], dtype=torch.int32)
        foreign = of_tokens[:, None] != owners[None]  # a token without adapter shares none: 0 owns nothing
        foreign |= owners[None] == 0
        active = frozenset(name for adapter in needed for name in adapter.parts)
        particular = refinements(adapters)
        return TorchLoraBatch(self._groups, self._down, self._up, active, rows, foreign[:, :, None], particular)

    def forget(self, adapter: AdapterWeights) -> None:
        self._starts.pop(adapter, None)

    def _make_room(self, needed: Collection[AdapterWeights]) -> None:
        """Those that are here stay where they are; others take the lowest rows that no needed one holds."""
        for adapter in needed:
            if adapter in self._starts:
                continue
            start = self._gap(adapter.rank, [a for a in self._starts if a in needed])
            end = start + adapter.rank
            for other, place in list(self._starts.items()):
                if place < end and start < place + other.rank:
                    del self._starts[other]
            if end > self._rows:
                self._grow(max(end, 2 * self._rows))
            for name, down in self._down.items():
                part = adapter.parts.get(name)
                down[:, start:end] = 0 if part is None else part.down
                widths = self._groups[name].outs
                ups = [0] * len(widths) if part is None else part.up.split(widths, dim=2)
                for kept, up in zip(self._up[name], ups, strict=True):
                    kept[:, start:end] = up
            self._starts[adapter] = start

    def _gap(self, rank: int, staying: Sequence[AdapterWeights]) -> int:
        start = 0
        for place, adapter in sorted((self._starts[a], a.rank) for a in staying):
            if place - start >= rank:
                break
            start = place + adapter
        return start

    def _grow(self, rows: int) -> None:
        for name, group in self._groups.items():
            down = torch.zeros(group.layers, rows, len(group.outs), group.ins, dtype=self._dtype)
            up = [torch.zeros(group.layers, rows, out, dtype=self._dtype) for out in group.outs]
            if self._rows:
                down[:, : self._rows] = self._down[name]
                for new, old in zip(up, self._up[name], strict=True):
                    new[:, : self._rows] = old
            self._down[name], self._up[name] = down, up
        self._rows = rows


@dataclass(frozen=True, slots=True)
class TorchLoraBatch(LoraBatch):
    """``active``: the groups that any of its adapters has a part in. ``foreign`` [tokens, rows, 1]: what a token
    has no part in."""

    groups: Mapping[str, Group]
    down: Mapping[str, Tensor]
    up: Mapping[str, list[Tensor]]
    active: frozenset[str]
    rows: int
    foreign: Tensor
    refinements: Refinements

    def add(self, name: str, layer: int, rows: Tensor, out: Tensor, bias: Tensor | None) -> None:
        if name not in self.active:
            return
        group = self.groups[name]
        down = self.down[name][layer, : self.rows]
        hidden = torch.mm(rows, down.reshape(-1, group.ins).t()).view(len(rows), self.rows, len(group.outs))
        hidden.masked_fill_(self.foreign, 0)
        start = 0
        for module, width in enumerate(group.outs):
            out[:, start : start + width].addmm_(hidden[:, :, module], self.up[name][module][layer, : self.rows])
            start += width
        refine(self.refinements, name, group, layer, out, bias)
