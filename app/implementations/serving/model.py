"""The base model in memory, and one step of it for one sequence."""

import inspect
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from app.implementations.models.devices import pick_device, pick_precision
from app.implementations.models.loading import load_causal_lm
from app.implementations.serving.messages import Precision


class BaseModel:
    """A causal language model from a local folder; transformers' own code and cache, so any architecture."""

    def __init__(self, folder: Path, precision: Precision) -> None:
        self.device = pick_device("auto")
        self.dtype = pick_precision(precision, self.device)
        self.network: Any = load_causal_lm(folder, self.dtype).to(self.device).eval()
        self._config = self.network.config.get_text_config(decoder=True)
        # Without it a prompt's every position would go through the head: gigabytes for a long one.
        last_only = "logits_to_keep" in inspect.signature(self.network.forward).parameters
        self._options = {"logits_to_keep": 1} if last_only else {}
        self.linear_shapes = {  # name → (out, in), to hold an adapter's weights against
            name: (module.out_features, module.in_features)
            for name, module in self.network.named_modules()
            if isinstance(module, torch.nn.Linear)
        }

    @property
    def context(self) -> int:
        """The most tokens of prompt and answer together."""
        # Architectures without a table of positions (ALiBi, state spaces) do not say.
        return int(getattr(self._config, "max_position_embeddings", 8192))

    @property
    def vocabulary(self) -> int:
        return int(self.network.get_input_embeddings().weight.shape[0])

    @property
    def end_ids(self) -> list[int]:
        """What ends an answer: generation_config.json's ids, else config.json's."""
        ids = self.network.generation_config.eos_token_id
        if ids is None:
            ids = self._config.eos_token_id
        return [] if ids is None else [ids] if isinstance(ids, int) else [int(i) for i in ids]

    def new_cache(self) -> DynamicCache:
        return DynamicCache(config=self._config)

    @torch.inference_mode()
    def step(self, ids: list[int], cache: DynamicCache) -> torch.Tensor:
        """Read ``ids`` after what is in ``cache``; the next token's logits, float32 [vocabulary], on the CPU."""
        batch = torch.tensor([ids], device=self.device)
        output = self.network(input_ids=batch, past_key_values=cache, use_cache=True, **self._options)
        logits: torch.Tensor = output.logits[0, -1].float().cpu()
        return logits
