"""From logits to a token. Each request draws from its own generator, so that nobody's draws move another's."""

import torch

from app.implementations.models.sampling import keep_top_p
from app.implementations.serving.messages import Submit


class Sampler:
    """Greedy at temperature 0, else temperature and nucleus sampling."""

    def __init__(self, request: Submit) -> None:
        self._temperature = request.temperature
        self._top_p = request.top_p
        # On the CPU whatever the model's device: the same seed then gives the same draws everywhere.
        self._generator = torch.Generator(device="cpu")
        if request.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(request.seed)

    def draw(self, logits: torch.Tensor) -> int:
        """``logits``: float32 [vocabulary], on the CPU. Raises ``ValueError`` where they hold NaN or infinity."""
        peak = logits.max()
        if not bool(peak.isfinite()):
            raise ValueError("the logits are not finite numbers")
        if self._temperature == 0:
            return int(logits.argmax())
        # Subtract the maximum first: a tiny temperature must not overflow to infinity.
        probabilities = torch.softmax((logits - peak) / self._temperature, dim=-1)
        if self._top_p < 1:
            probabilities = keep_top_p(probabilities, self._top_p)
        return int(torch.multinomial(probabilities, 1, generator=self._generator))


def logprobs(logits: torch.Tensor, token: int, top: int) -> tuple[float, list[tuple[int, float]]]:
    """Log probability of ``token`` and of the ``top`` most likely, of the model's own distribution (as vLLM)."""
    values = torch.log_softmax(logits, dim=-1)
    best = values.topk(top)
    pairs = [(int(i), float(v)) for i, v in zip(best.indices, best.values, strict=True)]
    return float(values[token]), pairs
