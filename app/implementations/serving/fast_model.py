"""The fast path: every sequence and every adapter of a turn in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from app.implementations.serving.decoder import Decoder
from app.implementations.serving.kernels import Kernels, Span
from app.implementations.serving.kv_cache import Cached
from app.implementations.serving.lora_files import read_adapter
from app.implementations.serving.lora_weights import AdapterWeights
from app.implementations.serving.model import Chunk, ServedModel
from app.implementations.serving.prefix_cache import PrefixCache

PREFIX_SHARE = 4  # of the bytes for keys and values, one in so many is for prompts that may come again


class FastModel(ServedModel):
    def __init__(self, network: Any, kv_bytes: int, kernels: Kernels, int8: bool = False) -> None:
        super().__init__(network)
        self._decoder = Decoder(network, kernels, int8)
        self._caches = self._decoder.new_cache(kv_bytes - kv_bytes // PREFIX_SHARE)
        self._prefixes = PrefixCache(self._caches, kv_bytes // PREFIX_SHARE)
        self._loaded = 0
        self._bank = kernels.lora_bank(self._decoder.groups, self._decoder.dtype)
        if not self._caches.longest:
            raise ValueError(f"ENGINE_KV_BYTES is {kv_bytes}: not enough for a single sequence of this model")
        self.context = min(self.context, self._caches.longest)

    @property
    def kv_bytes(self) -> int:
        return self._caches.used_bytes

    @property
    def reused_tokens(self) -> int:
        return self._prefixes.reused_tokens

    def new_cache(self) -> Cached:
        return Cached()

    def reserve(self, cache: Cached, tokens: int) -> None:
        self._caches.reserve(cache, tokens)

    def release(self, cache: Cached) -> None:
        self._caches.release(cache)

    def recall(self, cache: Cached, ids: Sequence[int], adapter: AdapterWeights | None, sharing: str) -> int:
        return self._prefixes.recall(cache, ids, _owner(adapter, sharing))

    def remember(self, cache: Cached, ids: Sequence[int], adapter: AdapterWeights | None, sharing: str) -> None:
        self._prefixes.remember(cache, ids, _owner(adapter, sharing))

    def step(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        ends = list(accumulate(len(chunk.ids) for chunk in chunks))
        spans = [Span(c.cache, end - len(c.ids), end) for c, end in zip(chunks, ends, strict=True)]
        adapters = [chunk.adapter for chunk in chunks for _ in chunk.ids]
        ids = torch.tensor([token for chunk in chunks for token in chunk.ids])
        wanted = [end - 1 for chunk, end in zip(chunks, ends, strict=True) if chunk.last]
        for chunk in chunks:
            chunk.cache.written = chunk.cache.length + len(chunk.ids)
        logits = self._decoder.forward(ids, spans, wanted, self._bank.batch(adapters))
        for chunk in chunks:
            chunk.cache.length = chunk.cache.written
        return logits

    def load_adapter(self, folder: Path, layers: Sequence[str]) -> tuple[AdapterWeights, int]:
        self._loaded += 1
        weights = read_adapter(folder, self._decoder, str(self._loaded))
        return weights, weights.bytes

    def drop_adapter(self, adapter: AdapterWeights) -> None:
        self._bank.forget(adapter)


def _owner(adapter: AdapterWeights | None, sharing: str) -> str:
    return f"{'' if adapter is None else adapter.key}/{sharing}"
