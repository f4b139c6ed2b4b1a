"""What the core asks of a base model in memory; there is a fast one and one for every architecture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens of one sequence to be read after those in its ``cache``. ``adapter``: as ``load_adapter`` gave it."""

    ids: Sequence[int]
    cache: Any
    adapter: Any
    last: bool  # the next token is wanted


class ServedModel(ABC):
    """``end_ids`` end an answer: generation_config.json's, else config.json's.

    ``linear_shapes``: name → (out, in), to hold an adapter's weights against.
    """

    linear_shapes: Mapping[str, tuple[int, int]]

    def __init__(self, network: Any) -> None:
        config = network.config.get_text_config(decoder=True)
        # Architectures without a table of positions (ALiBi, state spaces) do not say.
        self.context = int(getattr(config, "max_position_embeddings", 8192))  # of prompt and answer together
        self.vocabulary = int(network.get_input_embeddings().weight.shape[0])
        ids = network.generation_config.eos_token_id
        if ids is None:
            ids = config.eos_token_id
        self.end_ids = [] if ids is None else [ids] if isinstance(ids, int) else [int(i) for i in ids]
        self.linear_shapes = {
            name: (module.out_features, module.in_features)
            for name, module in network.named_modules()
            if isinstance(module, torch.nn.Linear)
        }

    @property
    @abstractmethod
    def kv_bytes(self) -> int:
        """Set aside for what running sequences have read."""

    @abstractmethod
    def new_cache(self) -> Any:
        """Of a sequence that nothing has been read of."""

    @abstractmethod
    def reserve(self, cache: Any, tokens: int) -> None:
        """Room for so many more; ``NoRoom``."""

    @abstractmethod
    def release(self, cache: Any) -> None:
        """It is not read any more."""

    @abstractmethod
    def recall(self, cache: Any, ids: Sequence[int], adapter: Any, sharing: str) -> int:
        """Make room for these tokens in a new cache, and lay into it what was read of them with that adapter.

        How many that is, at most all but the last. Only requests of one ``sharing`` have anything in common.
        ``NoRoom``.
        """

    @abstractmethod
    def remember(self, cache: Any, ids: Sequence[int], adapter: Any, sharing: str) -> None:
        """These were read into ``cache``."""

    @abstractmethod
    def step(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        """Read all of them, for each of which room is reserved.

        The next tokens' logits of the chunks that want them, in order: float32 [wanted, vocabulary], on the CPU.
        """

    @abstractmethod
    def load_adapter(self, folder: Path, layers: Sequence[str]) -> tuple[Any, int]:
        """An adapter that was checked, adapting ``layers``, for a Chunk; and its bytes. ``AdapterRefused``."""

    @abstractmethod
    def drop_adapter(self, adapter: Any) -> None:
        """No sequence uses it any more."""
