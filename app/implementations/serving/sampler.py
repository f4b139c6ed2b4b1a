"""From logits to a token. Each request draws from its own generator, so that nobody's draws move another's."""

from collections import Counter
from collections.abc import Sequence

import torch

from app.implementations.models.sampling import sample
from app.implementations.serving.messages import Sampling


class Sampler:
    """Draws one request's tokens, in vLLM's order: penalties, temperature, min-p, top-k, top-p."""

    def __init__(self, sampling: Sampling, prompt_ids: Sequence[int]) -> None:
        self._sampling = sampling
        self._seen = set(prompt_ids) if sampling.repetition_penalty != 1 else set()
        self._made: Counter[int] = Counter()
        # On the CPU whatever the model's device: the same seed then gives the same draws everywhere.
        self._generator = torch.Generator(device="cpu")
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def draw(self, logits: torch.Tensor) -> int:
        """``logits``: float32 [vocabulary], on the CPU. Raises ``ValueError`` where they hold NaN or infinity."""
        if not bool(logits.max().isfinite()):
            raise ValueError("the logits are not finite numbers")
        token = sample(self._penalised(logits), self._sampling, self._generator)
        self._made[token] += 1
        return token

    def _penalised(self, logits: torch.Tensor) -> torch.Tensor:
        """The repetition penalty is of tokens in prompt and answer (CTRL, https://arxiv.org/abs/1909.05858), the
        others are OpenAI's, of tokens in the answer."""
        sampling = self._sampling
        if sampling.repetition_penalty != 1:
            places = torch.tensor(sorted(self._seen | self._made.keys()))
            logits = logits.clone()
            values = logits[places]
            factor = sampling.repetition_penalty
            logits[places] = torch.where(values > 0, values / factor, values * factor)
        if self._made and (sampling.presence_penalty or sampling.frequency_penalty):
            places = torch.tensor(list(self._made))
            counts = torch.tensor(list(self._made.values()), dtype=torch.float32)
            logits = logits.clone()
            logits[places] -= sampling.presence_penalty + sampling.frequency_penalty * counts
        return logits


def logprobs(logits: torch.Tensor, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """Log probability of ``token`` and of the ``top`` most likely, of the model's own distribution (as vLLM)."""
    values = torch.log_softmax(logits, dim=-1)
    best = values.topk(top)
    pairs = [(int(i), float(v)) for i, v in zip(best.indices, best.values, strict=True)]
    return float(values[token]), pairs
