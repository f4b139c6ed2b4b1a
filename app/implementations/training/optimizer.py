"""Optimizers over float32 masters of parameters that compute in bf16, and the learning rate of a step.

In bf16 alone AdamW at 1e-4 leaves over half of the adapter's entries unchanged: the steps round away.
Gradients of the micro-steps are summed in float32 too. An adapter is hundreds of small tensors: what touches
all of them is one call for all of them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from app.core.entities.training_config import TrainingConfig
from app.core.errors import Invalid
from app.implementations.training.lamb import Lamb


class MasterOptimizer:
    """``parameters`` by name; each has a float32 master that ``step`` updates and copies back.

    ``rate_factors``, by name, multiply the learning rate of some; ``optimizer`` is a name of the config's.
    ``Invalid`` where the package that it needs is missing.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        weight_decay: float,
        rate_factors: Mapping[str, float] | None = None,
        optimizer: str = "adamw",
    ) -> None:
        self.parameters = dict(parameters)
        self.masters = {name: p.detach().float().clone() for name, p in self.parameters.items()}
        self._gradients = [torch.zeros_like(master) for master in self.masters.values()]
        by_factor: dict[float, list[torch.Tensor]] = {}
        for (name, master), gradient in zip(self.masters.items(), self._gradients, strict=True):
            master.grad = gradient
            by_factor.setdefault((rate_factors or {}).get(name, 1.0), []).append(master)
        groups = [{"params": masters, "factor": factor} for factor, masters in by_factor.items()]
        self._inner = _inner(optimizer, groups, weight_decay)

    def accumulate(self) -> None:
        """Move a micro-step's gradients into the masters'."""
        found = [(sum_, p.grad) for sum_, p in zip(self._gradients, self.parameters.values(), strict=True)]
        sums = [(sum_, gradient) for sum_, gradient in found if gradient is not None]
        if sums:
            torch._foreach_add_([sum_ for sum_, _ in sums], [gradient for _, gradient in sums])
        for parameter in self.parameters.values():
            parameter.grad = None

    def clip(self, max_norm: float) -> float:
        """Scale gradients to ``max_norm`` at most; the answer is their norm before.

        The numbers are those of ``clip_grad_norm_``, which loops over the tensors in Python on a CPU.
        """
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(self._gradients)))
        torch._foreach_mul_(self._gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
        return float(norm)

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        for group in self._inner.param_groups:
            group["lr"] = learning_rate * group["factor"]
        self._inner.step()
        torch._foreach_copy_(list(self.parameters.values()), list(self.masters.values()))
        torch._foreach_zero_(self._gradients)

    def load_masters(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put ``weights`` (float32, by name) into the masters and the model."""
        for name, parameter in self.parameters.items():
            self.masters[name].copy_(weights[name])
            parameter.data.copy_(weights[name])

    def state_dict(self) -> dict[str, Any]:
        return self._inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._inner.load_state_dict(state)


def _inner(name: str, groups: Sequence[dict[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
    if name == "lamb":
        return Lamb(groups, weight_decay)
    if name == "adamw_8bit":
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError:
            raise Invalid(
                "optimizer: adamw_8bit needs the package bitsandbytes: install it, or take adamw",
                code="package_missing",
            ) from None
        # Dettmers et al. 2021 (arXiv:2110.02861). A tensor of fewer than 4,096 entries keeps float32 state.
        return AdamW8bit(groups, weight_decay=weight_decay)
    return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)


def learning_rate(config: TrainingConfig, step: int, total_steps: int) -> float:
    """Of optimizer step ``step`` (from 0): linear warm-up, then the schedule down to zero.

    A pure function, so a checkpoint needs no state of a scheduler.
    """
    ratio = config.warmup_ratio
    # Rounded first: a tenth of 30 steps is 3.0000000000000004 in floating point.
    warmup = config.warmup_steps if ratio is None else math.ceil(round(ratio * total_steps, 6))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    if config.lr_schedule == "constant":
        return config.learning_rate
    done = (step - warmup) / max(1, total_steps - warmup)
    factor = 1 - done if config.lr_schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * max(0.0, factor)
