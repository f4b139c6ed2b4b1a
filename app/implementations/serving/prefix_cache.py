"""Keys and values of prompts that were read before, for prompts that begin alike.

A prompt is cut into blocks; each block is known by all tokens up to its end, by who may share it and by the
adapter that it was read with, as in vLLM's automatic prefix caching. By a SHA-256 of these: with a hash that can
be steered, one tenant could make a prompt that is taken for another's.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from app.implementations.serving.kv_cache import Cached, KvCache

BLOCK = 16  # tokens; as many as in vLLM


@dataclass(frozen=True, slots=True)
class _Block:
    keys: Tensor  # [layers, key/value heads, BLOCK, head size]
    values: Tensor


class PrefixCache:
    """``budget`` in bytes, the least recently used out."""

    def __init__(self, caches: KvCache, budget: int) -> None:
        self._caches = caches
        self._budget = budget
        self._blocks: OrderedDict[bytes, _Block] = OrderedDict()
        self._bytes = 0
        self.reused_tokens = 0

    def recall(self, cached: Cached, ids: Sequence[int], owner: str) -> int:
        """Take a place for ``ids``, and lay what is known of them into it; how many tokens that is, never all.

        ``owner``: those with another one share nothing. ``NoRoom``, and all is as it was.
        """
        self._caches.reserve(cached, len(ids))
        found = []
        for key in _keys(ids[:-1], owner):
            block = self._blocks.get(key)
            if block is None:
                break
            self._blocks.move_to_end(key)
            found.append(block)
        slab = cached.slab
        assert slab is not None
        for number, block in enumerate(found):
            place = slice(number * BLOCK, (number + 1) * BLOCK)
            slab.keys[:, cached.place, :, place] = block.keys
            slab.values[:, cached.place, :, place] = block.values
        cached.length = cached.written = len(found) * BLOCK
        self.reused_tokens += cached.length
        return cached.length

    def remember(self, cached: Cached, ids: Sequence[int], owner: str) -> None:
        """``ids``: the first tokens in ``cached``."""
        slab = cached.slab
        assert slab is not None
        for number, key in enumerate(_keys(ids, owner)):
            if key in self._blocks:
                continue
            place = slice(number * BLOCK, (number + 1) * BLOCK)
            keys = slab.keys[:, cached.place, :, place].clone()
            self._blocks[key] = _Block(keys, slab.values[:, cached.place, :, place].clone())
            self._bytes += 2 * keys.nbytes
        while self._bytes > self._budget:
            _, gone = self._blocks.popitem(last=False)
            self._bytes -= 2 * gone.keys.nbytes


def _keys(ids: Sequence[int], owner: str) -> Iterator[bytes]:
    """Of the whole blocks, in order."""
    key = hashlib.sha256(owner.encode()).digest()
    for start in range(0, len(ids) - BLOCK + 1, BLOCK):
        key = hashlib.sha256(key + array("I", ids[start : start + BLOCK]).tobytes()).digest()
        yield key
