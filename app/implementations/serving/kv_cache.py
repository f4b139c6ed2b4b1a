"""Keys and values of the tokens read so far, for the fast path.

Sequences of like length lie side by side in a slab, so that the attention of all of them is one batched product. A
sequence that outgrows its slab's places moves to one whose places are twice as long.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

SHORTEST = 256  # tokens of the smallest place
SLAB_TOKENS = 8192  # of all places of a slab together, or one place if that is longer


class NoRoom(Exception):
    """The budget is spent: somebody has to go first."""


class Slab:
    """``keys`` and ``values``: [layers, places, key/value heads, tokens, head size]."""

    def __init__(self, layers: int, heads: int, size: int, tokens: int, dtype: torch.dtype) -> None:
        self.tokens = tokens
        self.places = places_of(tokens)
        # What lies behind a sequence's last token is masked, and must be a number for that: a place is zeros again
        # when it is given back.
        self.keys, self.values = (_zeros([layers, self.places, heads, tokens, size], dtype) for _ in range(2))
        self.free = list(range(self.places))

    @property
    def empty(self) -> bool:
        return len(self.free) == self.places


@dataclass(slots=True, eq=False)
class Cached:
    """One sequence's place; None before its first token. ``length`` tokens are read; ``written`` are more after a
    pass that failed."""

    length: int = 0
    written: int = 0
    slab: Slab | None = None
    place: int = 0


class KvCache:
    """``budget`` bytes of slabs. One that no sequence is in any more is kept, until its bytes are wanted."""

    def __init__(self, layers: int, heads: int, size: int, dtype: torch.dtype, budget: int) -> None:
        self._shape = layers, heads, size
        self._dtype = dtype
        self._token_bytes = 2 * layers * heads * size * dtype.itemsize
        self._budget = budget
        self._slabs: dict[int, list[Slab]] = {}  # by tokens of a place

    @property
    def used_bytes(self) -> int:
        used = (slab for slabs in self._slabs.values() for slab in slabs if not slab.empty)
        return sum(self._slab_bytes(slab.tokens) for slab in used)

    @property
    def longest(self) -> int:
        """The most tokens of a sequence that has the budget to itself; 0: not even the smallest slab fits."""
        fitting = (tokens for tokens in _sizes() if self._slab_bytes(tokens) > self._budget)
        return next(fitting) // 2 if self._slab_bytes(SHORTEST) <= self._budget else 0

    def reserve(self, cached: Cached, more: int) -> None:
        """Room for ``more`` tokens after those that are there. ``NoRoom``, and all is as it was."""
        wanted = cached.length + more
        if cached.slab is not None and wanted <= cached.slab.tokens:
            return
        slab, place = self._take(next(tokens for tokens in _sizes() if tokens >= wanted))
        if cached.slab is not None:
            kept = slice(0, cached.length)
            slab.keys[:, place, :, kept] = cached.slab.keys[:, cached.place, :, kept]
            slab.values[:, place, :, kept] = cached.slab.values[:, cached.place, :, kept]
            self._give(cached)
        cached.slab, cached.place = slab, place

    def release(self, cached: Cached) -> None:
        if cached.slab is not None:
            self._give(cached)
        cached.slab, cached.length, cached.written = None, 0, 0

    def _take(self, tokens: int) -> tuple[Slab, int]:
        """The lowest free place of the first slab that has one: attention runs from the lowest to the highest."""
        slabs = self._slabs.setdefault(tokens, [])
        slab = next((slab for slab in slabs if slab.free), None)
        if slab is None:
            self._make_room(self._slab_bytes(tokens))
            slab = Slab(*self._shape, tokens, self._dtype)
            slabs.append(slab)
        place = min(slab.free)
        slab.free.remove(place)
        return slab, place

    def _give(self, cached: Cached) -> None:
        slab = cached.slab
        assert slab is not None
        slab.free.append(cached.place)
        for kept in (slab.keys, slab.values):
            kept[:, cached.place, :, : cached.written].zero_()

    def _make_room(self, wanted: int) -> None:
        if self.used_bytes + wanted > self._budget:
            raise NoRoom
        empty = [slab for slabs in self._slabs.values() for slab in slabs if slab.empty]
        spare = self._budget - self.used_bytes - sum(self._slab_bytes(slab.tokens) for slab in empty)
        for slab in empty:
            if spare >= wanted:
                break
            self._slabs[slab.tokens].remove(slab)
            spare += self._slab_bytes(slab.tokens)

    def _slab_bytes(self, tokens: int) -> int:
        return places_of(tokens) * tokens * self._token_bytes


def _zeros(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """In pages that take no memory before somebody writes to them; torch's own are written at once."""
    pages = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    return torch.frombuffer(pages, dtype=dtype).view(shape)


def places_of(tokens: int) -> int:
    return max(1, SLAB_TOKENS // tokens)


def _sizes() -> Iterator[int]:
    tokens = SHORTEST
    while True:
        yield tokens
        tokens *= 2
