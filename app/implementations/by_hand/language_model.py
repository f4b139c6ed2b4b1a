"""A model of the house's own code, from files to tokens: TinyLLM, LoraLinear and the sampling beside them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from app.core.entities.datasets import IGNORED, TokenizedRow
from app.core.entities.inference import SamplingOptions
from app.core.interfaces.components import LanguageModel, ModelLoader
from app.implementations.by_hand.lora_linear import load_lora, merge_lora
from app.implementations.by_hand.tiny_llm import TinyLLM, generate
from app.implementations.models.sampling import sample


class ByHandLoader(ModelLoader):
    """Loads a Llama as a TinyLLM, with an adapter merged: it is not trained, and one product a layer is less."""

    def load(self, folder: Path, precision: Any, adapter: Path | None = None, **options: Any) -> TinyLLM:
        model = TinyLLM.load(folder).to(precision).requires_grad_(False)
        if adapter is not None:
            load_lora(model, adapter)
            merge_lora(model)
        return model


class ModelByHand(LanguageModel):
    """Float32, on the CPU. ``Invalid`` for a model of another architecture than Llama's, or no plain LoRA."""

    def __init__(
        self,
        folder: Path,
        adapter_folder: Path | None,
        stop_token_ids: Sequence[int],
        seed: int | None,
        threads: int,
    ) -> None:
        torch.set_num_threads(threads)
        self._model: TinyLLM = ByHandLoader().load(folder, torch.float32, adapter_folder).eval()
        self.context = self._model.config.context
        self._stops = frozenset(stop_token_ids)
        self._generator = torch.Generator()
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)

    def tokens(self, prompt: Sequence[int], sampling: SamplingOptions) -> Iterator[int]:
        return generate(
            self._model,
            prompt,
            lambda logits: sample(logits, sampling, self._generator),
            max_tokens=sampling.max_tokens,
            stop_ids=self._stops,
        )

    @torch.inference_mode()
    def loss(self, row: TokenizedRow) -> float:
        logits = self._model(torch.tensor([row.input_ids]))[0]
        targets = torch.tensor(row.labels)[1:]
        return float(cross_entropy(logits[:-1], targets, ignore_index=IGNORED, reduction="sum"))
