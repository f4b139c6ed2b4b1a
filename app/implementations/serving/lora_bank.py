"""The adapters of a batch, side by side: one pair of matrix products serves all of them in each layer.

Every adapter holds a range of the bank's rows, as many as its largest rank. A token's hidden values are multiplied
with all rows, and what is not of its own adapter is put to zero before the second product. On GPUs the adapters'
weights are gathered instead (Punica, https://arxiv.org/abs/2310.18547); on a CPU reading them is what takes time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Place = tuple[int, int]  # layer, module of the group


@dataclass(frozen=True, slots=True)
class Group:
    """Modules that share an input in each of ``layers`` layers, and one product: ``outs`` of each."""

    layers: int
    ins: int
    outs: tuple[int, ...]


@dataclass(slots=True, eq=False)
class AdapterPart:
    """What one adapter adds to one group. ``down`` [layers, rank, modules, in], ``up``: for each module
    [layers, rank, out], scaled. A module or layer that it leaves alone has zeros.

    ``gains`` and ``offsets``: what DoRA multiplies a module's outcome with, and LoRA's own bias, [out].
    """

    down: Tensor
    up: list[Tensor]
    gains: dict[Place, Tensor] = field(default_factory=dict)
    offsets: dict[Place, Tensor] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class AdapterWeights:
    """``key`` is of one loading."""

    key: str
    rank: int
    parts: dict[str, AdapterPart]  # by the group's name

    @property
    def bytes(self) -> int:
        tensors = [tensor for part in self.parts.values() for tensor in (part.down, *part.up)]
        return sum(tensor.nbytes for tensor in tensors)


class LoraBank:
    def __init__(self, groups: Mapping[str, Group], dtype: torch.dtype) -> None:
        self._groups = groups
        self._dtype = dtype
        self._starts: dict[AdapterWeights, int] = {}
        self._rows = 0
        self._down: dict[str, Tensor] = {}  # [layers, rows, modules, in]
        self._up: dict[str, list[Tensor]] = {}  # of each module [layers, rows, out]

    def batch(self, adapters: Sequence[AdapterWeights | None]) -> LoraBatch | None:
        """For tokens of these adapters, one each; None if none has any."""
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
        extra = {
            adapter: (of_tokens == number).nonzero()[:, 0]
            for adapter, number in numbers.items()
            if any(part.gains or part.offsets for part in adapter.parts.values())
        }
        active = frozenset(name for adapter in needed for name in adapter.parts)
        return LoraBatch(self._groups, self._down, self._up, active, rows, foreign[:, :, None], extra)

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
                for module, up in enumerate(self._up[name]):
                    up[:, start:end] = 0 if part is None else part.up[module]
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
class LoraBatch:
    """``active``: the groups that any of its adapters has a part in. ``foreign`` [tokens, rows, 1]: what a token
    has no part in. ``extra``: the tokens of each adapter that does more than two products."""

    groups: Mapping[str, Group]
    down: Mapping[str, Tensor]
    up: Mapping[str, list[Tensor]]
    active: frozenset[str]
    rows: int
    foreign: Tensor
    extra: Mapping[AdapterWeights, Tensor]

    def add(self, name: str, layer: int, rows: Tensor, out: Tensor, bias: Tensor | None) -> None:
        """To ``out``, [tokens, sum of outs], what the adapters make of ``rows``, [tokens, in]."""
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
        for adapter, tokens in self.extra.items():
            part = adapter.parts.get(name)
            if part is not None:
                _refine(part, group, layer, tokens, out, bias)


def _refine(part: AdapterPart, group: Group, layer: int, tokens: Tensor, out: Tensor, bias: Tensor | None) -> None:
    start = 0
    for module, width in enumerate(group.outs):
        place, columns = (layer, module), slice(start, start + width)
        start += width
        gain, offset = part.gains.get(place), part.offsets.get(place)
        if gain is None and offset is None:
            continue
        values = out[tokens, columns]
        if gain is not None:
            fixed = 0 if bias is None else bias[columns]
            values = (values - fixed) * gain + fixed
        out[tokens, columns] = values if offset is None else values + offset
