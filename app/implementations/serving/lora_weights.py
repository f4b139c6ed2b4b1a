"""Adapters in memory, and what some of them do beyond two products of matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """What one adapter adds to one group. ``down`` [layers, rank, modules, in]; ``up``, scaled, [layers, rank, sum
    of outs]. A module or layer that it leaves alone has zeros.

    ``gains`` and ``offsets``: what DoRA multiplies a module's outcome with, and LoRA's own bias, [out].
    """

    down: Tensor
    up: Tensor
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
        return sum(part.down.nbytes + part.up.nbytes for part in self.parts.values())

    @property
    def refines(self) -> bool:
        return any(part.gains or part.offsets for part in self.parts.values())


Refinements = Mapping[AdapterWeights, Tensor]  # the tokens of each adapter that does more than two products


def refinements(adapters: Sequence[AdapterWeights | None]) -> Refinements:
    """``adapters``: of the tokens, one each."""
    refining = dict.fromkeys(adapter for adapter in adapters if adapter is not None and adapter.refines)
    return {one: torch.tensor([at for at, a in enumerate(adapters) if a is one]) for one in refining}


def refine(
    refinements: Refinements, name: str, group: Group, layer: int, out: Tensor, bias: Tensor | None
) -> None:
    """``out``, [tokens, sum of outs], once it has the products; ``bias``: what it holds of the layer's own."""
    for adapter, tokens in refinements.items():
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
