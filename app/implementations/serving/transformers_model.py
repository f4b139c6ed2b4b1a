"""Any causal architecture: transformers' own code and cache, PEFT's adapters, one sequence at a time."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from app.implementations.models.lean_peft import LoraConfig, PeftModel
from app.implementations.serving.adapter_files import AdapterRefused
from app.implementations.serving.model import Chunk, ServedModel


class TransformersModel(ServedModel):
    """Adapters stay float32 beside a bf16 base, as PEFT loads them and the trainer has them: cast down, they would
    not answer as ``PeftModel.generate`` does."""

    def __init__(self, network: Any, device: torch.device) -> None:
        super().__init__(network)
        self._network = network
        self._device = device
        # Without it a prompt's every position would go through the head: gigabytes for a long one.
        last_only = "logits_to_keep" in inspect.signature(network.forward).parameters
        self._options = {"logits_to_keep": 1} if last_only else {}
        self._peft: Any = None  # a PeftModel, from the first adapter on
        self._active: str | None = None
        self._loaded = 0

    @property
    def kv_bytes(self) -> int:
        return 0  # transformers' caches are not counted

    def new_cache(self) -> DynamicCache:
        return DynamicCache(config=self._network.config.get_text_config(decoder=True))

    def reserve(self, cache: DynamicCache, tokens: int) -> None:
        """It grows as it must."""

    def release(self, cache: DynamicCache) -> None:
        """It goes with its sequence."""

    def recall(self, cache: DynamicCache, ids: Sequence[int], adapter: str | None, sharing: str) -> int:
        return 0

    def remember(self, cache: DynamicCache, ids: Sequence[int], adapter: str | None, sharing: str) -> None:
        """Nothing: its caches cannot be cut for every architecture."""

    def step(self, chunks: Sequence[Chunk]) -> torch.Tensor:
        logits = {place: self._read(chunks[place]) for place in self._by_adapter(chunks)}
        wanted = [logits[place] for place, chunk in enumerate(chunks) if chunk.last]
        return torch.stack(wanted) if wanted else torch.empty(0, self.vocabulary)

    def load_adapter(self, folder: Path, layers: Sequence[str]) -> tuple[str, int]:
        self._loaded += 1
        # Of fixed width, and without a dot: PEFT tells one adapter's missing weights from another's by substring.
        key = f"a{self._loaded:09d}"
        try:
            return key, self._load(folder, key, layers)
        except Exception:
            self.drop_adapter(key)
            raise

    def drop_adapter(self, adapter: str) -> None:
        if self._peft is None or adapter not in self._peft.peft_config:
            return
        if self._active in (None, adapter):
            self._activate(None)
        self._peft.base_model.delete_adapter(adapter)

    def _by_adapter(self, chunks: Sequence[Chunk]) -> list[int]:
        """Those of one adapter side by side: switching costs milliseconds."""
        return sorted(range(len(chunks)), key=lambda place: chunks[place].adapter or "")

    @torch.inference_mode()
    def _read(self, chunk: Chunk) -> torch.Tensor:
        if chunk.adapter != self._active:
            self._activate(chunk.adapter)
        batch = torch.tensor([list(chunk.ids)], device=self._device)
        output = self._network(input_ids=batch, past_key_values=chunk.cache, use_cache=True, **self._options)
        logits: torch.Tensor = output.logits[0, -1].float().cpu()
        return logits

    def _load(self, folder: Path, key: str, layers: Sequence[str]) -> int:
        config = LoraConfig.from_pretrained(folder)
        config.inference_mode = True
        # The layers that the file has weights for: no pattern can then reach a layer that PEFT cannot adapt, which
        # would leave the base model changed in part.
        config.target_modules, config.exclude_modules = set(layers), None
        config.layers_to_transform = config.layers_pattern = None
        if self._peft is None:
            # Puts its layers into the network in place; steps go on calling the network itself.
            self._peft = PeftModel(self._network, config, adapter_name=key).eval()
        else:
            self._peft.add_adapter(key, config)
        result = self._peft.load_adapter(folder, key, torch_device=str(self._device))
        self._activate(self._active)  # PEFT makes the first adapter of all active by itself
        if result.missing_keys or result.unexpected_keys:
            raise AdapterRefused("the weights are not those that its config names")
        weights = [weight for name, weight in self._network.named_parameters() if f".{key}." in name]
        if not all(bool(torch.isfinite(weight).all()) for weight in weights):
            raise AdapterRefused("the weights hold numbers that are not finite")
        return sum(weight.nbytes for weight in weights)

    def _activate(self, adapter: str | None) -> None:
        if self._peft is not None:
            self._peft.base_model.set_adapter([adapter] if adapter else [], inference_mode=True)
        self._active = adapter
