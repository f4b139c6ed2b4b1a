"""LAMB (You et al. 2020, arXiv:1904.00962, algorithm 2): Adam's step, scaled by layer to the weights' norm."""

from collections.abc import Sequence
from typing import Any

import torch

# γ_l of the paper's φ(z) = max(z, γ_l). LoRA's B begins at zero: with φ(z) = z it would hardly move, as each step
# is a fraction of its norm. A of rank 8 on 576 inputs has a norm of 1.6.
LOWEST_NORM = 1.0


class Lamb(torch.optim.Optimizer):
    """``groups`` as torch's optimizers take them. Each tensor is a layer of its own."""

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
    ) -> None:
        super().__init__(groups, {"lr": 1e-3, "betas": betas, "eps": eps, "weight_decay": weight_decay, "step": 0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            weights = group["params"]
            gradients = [weight.grad for weight in weights]
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight] = {"mean": torch.zeros_like(weight), "square": torch.zeros_like(weight)}
            means = [self.state[weight]["mean"] for weight in weights]
            squares = [self.state[weight]["square"] for weight in weights]
            group["step"] += 1
            first, second = group["betas"]

            torch._foreach_lerp_(means, gradients, 1 - first)
            torch._foreach_mul_(squares, second)
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
            updates = torch._foreach_div(means, 1 - first ** group["step"])
            roots = torch._foreach_div(squares, 1 - second ** group["step"])
            torch._foreach_sqrt_(roots)
            torch._foreach_add_(roots, group["eps"])
            torch._foreach_div_(updates, roots)
            torch._foreach_add_(updates, weights, alpha=group["weight_decay"])

            sizes = torch.stack(torch._foreach_norm(weights)).clamp(min=LOWEST_NORM)
            ratios = sizes / torch.stack(torch._foreach_norm(updates))
            # An update of nothing but zeros has no direction to scale.
            ratios = ratios.nan_to_num(posinf=0.0)
            torch._foreach_mul_(updates, list(ratios.unbind()))
            torch._foreach_add_(weights, updates, alpha=-group["lr"])
