"""Greedy answers to many prompts at once, for evaluation in this process."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from app.core.interfaces.components import TextGenerator
from app.implementations.models.devices import pick_device, pick_precision
from app.implementations.models.loading import loader_for


class BatchGenerator(TextGenerator):
    """transformers' ``generate`` over batches of prompts of like length, padded on the left."""

    def __init__(
        self,
        base_folder: Path,
        adapter_folder: Path | None,
        stop_token_ids: Sequence[int],
        threads: int,
        batch_size: int = 32,
    ) -> None:
        torch.set_num_threads(threads)
        self.device = pick_device("auto")
        self.stop_token_ids = list(stop_token_ids)
        self.batch_size = batch_size
        precision = pick_precision("auto", self.device)
        model = loader_for(quantised=False).load(base_folder, precision, adapter_folder)
        self.model = model.eval().to(self.device)

    def generate(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> Iterator[tuple[int, Sequence[int]]]:
        """See the interface: batches come in order of prompt length."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            yield from zip(chosen, self._batch([prompts[i] for i in chosen], max_tokens), strict=True)

    def _batch(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
        width = max(map(len, prompts))
        pad = self.stop_token_ids[0]
        ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=self.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self.device)
        with torch.inference_mode():
            made = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max_tokens,
                do_sample=False,
                eos_token_id=self.stop_token_ids,
                pad_token_id=pad,
                temperature=None,
                top_p=None,
                top_k=None,
            )
        return [self._until_stop(row) for row in made[:, width:].tolist()]

    def _until_stop(self, ids: list[int]) -> list[int]:
        end = next((i for i, token in enumerate(ids) if token in self.stop_token_ids), len(ids))
        return ids[:end]
