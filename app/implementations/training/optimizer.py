"""AdamW over float32 masters of parameters that compute in bf16.

In bf16 alone AdamW at 1e-4 leaves over half of the adapter's entries unchanged: the steps round away.
Gradients of the micro-steps are summed in float32 too.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from app.core.entities.training_config import TrainingConfig


class MasterOptimizer:
    """``parameters`` by name; each has a float32 master that ``step`` updates and copies back.

    ``rate_factors``, by name, multiply the learning rate of some.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        weight_decay: float,
        rate_factors: Mapping[str, float] | None = None,
    ) -> None:
        self.parameters = dict(parameters)
        self.masters = {name: p.detach().float().clone() for name, p in self.parameters.items()}
        for master in self.masters.values():
            master.grad = torch.zeros_like(master)
        factors = rate_factors or {}
        groups = [
            {
                "params": [m for name, m in self.masters.items() if factors.get(name, 1.0) == factor],
                "factor": factor,
            }
            for factor in sorted({factors.get(name, 1.0) for name in self.masters})
        ]
        self._adamw = torch.optim.AdamW(groups, weight_decay=weight_decay, foreach=True)

    def accumulate(self) -> None:
        """Move a micro-step's gradients into the masters'."""
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                self.masters[name].grad.add_(parameter.grad)  # type: ignore[union-attr]
                parameter.grad = None

    def clip(self, max_norm: float) -> float:
        """Scale gradients to ``max_norm`` at most; the answer is their norm before."""
        return float(torch.nn.utils.clip_grad_norm_(self.masters.values(), max_norm))

    def step(self, learning_rate: float) -> None:
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate * group["factor"]
        self._adamw.step()
        for name, parameter in self.parameters.items():
            parameter.data.copy_(self.masters[name])
        for master in self.masters.values():
            master.grad.zero_()  # type: ignore[union-attr]

    def load_masters(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put ``weights`` (float32, by name) into the masters and the model."""
        for name, parameter in self.parameters.items():
            self.masters[name].copy_(weights[name])
            parameter.data.copy_(weights[name])

    def state_dict(self) -> dict[str, Any]:
        return self._adamw.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._adamw.load_state_dict(state)


def learning_rate(config: TrainingConfig, step: int, total_steps: int) -> float:
    """Of optimizer step ``step`` (from 0): linear warm-up, then the schedule down to zero."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    factor = 1 - done if config.lr_schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * max(0.0, factor)
