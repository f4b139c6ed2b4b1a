"""The fast path: every sequence and every adapter of a turn in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from app.implementations.serving.decoder import Decoder, Span
from app.implementations.serving.kv_cache import Cached
from app.implementations.serving.lora_bank import AdapterWeights, LoraBank
from app.implementations.serving.lora_weights import read_adapter
from app.implementations.serving.model import Chunk, ServedModel


class FastModel(ServedModel):
    def __init__(self, network: Any, kv_bytes: int) -> None:
        super().__init__(network)
        self._decoder = Decoder(network)
        self._caches = self._decoder.new_cache(kv_bytes)
        self._bank = LoraBank(self._decoder.groups, self._decoder.dtype)
        if not self._caches.longest:
            raise ValueError(f"ENGINE_KV_BYTES is {kv_bytes}: not enough for a single sequence of this model")
        self.context = min(self.context, self._caches.longest)

    def new_cache(self) -> Cached:
        return Cached()

    def reserve(self, cache: Cached, tokens: int) -> None:
        self._caches.reserve(cache, tokens)

    def release(self, cache: Cached) -> None:
        self._caches.release(cache)

    def step(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        ends = list(accumulate(len(chunk.ids) for chunk in chunks))
        spans = [Span(c.cache, end - len(c.ids), end) for c, end in zip(chunks, ends, strict=True)]
        adapters = [chunk.adapter for chunk in chunks for _ in chunk.ids]
        ids = torch.tensor([token for chunk in chunks for token in chunk.ids])
        wanted = [end - 1 for chunk, end in zip(chunks, ends, strict=True) if chunk.last]
        logits = self._decoder.forward(ids, spans, wanted, self._bank.batch(adapters))
        for chunk in chunks:
            chunk.cache.length += len(chunk.ids)
        return logits

    def load_adapter(self, folder: Path, layers: Sequence[str]) -> tuple[AdapterWeights, int]:
        weights = read_adapter(folder, self._decoder)
        return weights, weights.bytes

    def drop_adapter(self, adapter: AdapterWeights) -> None:
        self._bank.forget(adapter)
