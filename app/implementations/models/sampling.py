"""From logits to a token: temperature, min-p, top-k (Fan et al. 2018, arXiv:1805.04833) and top-p."""

import torch

from app.core.entities.inference import SamplingOptions


def sample(logits: torch.Tensor, sampling: SamplingOptions, generator: torch.Generator) -> int:
    """Draw a token by its logits, float32 [vocabulary]: a function of the arguments and the generator's state.

    Greedy at temperature 0. Penalties are the caller's, and so is the seed: the generator has it.
    """
    if sampling.temperature == 0:
        return int(logits.argmax())
    # Subtract the maximum first: a tiny temperature must not overflow to infinity.
    probabilities = torch.softmax((logits - logits.max()) / sampling.temperature, dim=-1)
    if sampling.min_p > 0:
        probabilities[probabilities < sampling.min_p * probabilities.max()] = 0
    if 0 < sampling.top_k < len(probabilities):
        probabilities = keep_top_k(probabilities, sampling.top_k)
    if sampling.top_p < 1:
        probabilities = keep_top_p(probabilities / probabilities.sum(), sampling.top_p)
    return int(torch.multinomial(probabilities, 1, generator=generator))


def keep_top_k(probabilities: torch.Tensor, top_k: int) -> torch.Tensor:
    """Zero all but the ``top_k`` most likely."""
    kept, ids = probabilities.topk(top_k)
    return torch.zeros_like(probabilities).scatter_(-1, ids, kept)


def keep_top_p(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero all but the smallest set of most likely tokens whose mass reaches ``top_p``; never all of them.

    Nucleus sampling (Holtzman et al. 2019, arXiv:1904.09751).
    """
    ordered, ids = probabilities.sort(descending=True, stable=True)
    mass_before = ordered.cumsum(-1) - ordered
    ordered[mass_before >= top_p] = 0
    return torch.zeros_like(probabilities).scatter_(-1, ids, ordered)
