"""Optimizers over float32 masters of parameters that compute in bf16, and the learning rate of a step.

In bf16 alone AdamW at 1e-4 leaves over half of the adapter's entries unchanged: the steps round away.
Gradients of the micro-steps are summed in float32 too. An adapter is hundreds of small tensors: what touches
all of them is one call for all of them.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from app.core.entities.training_config import TrainingConfig
from app.core.errors import Invalid
from app.implementations.training.collective import (
    alone,
    for_first,
    from_first,
    is_first,
    local,
    piece,
    spread,
    total,
    whole,
)
from app.implementations.training.lamb import Lamb


class Masters(ABC):
    """Float32 masters of ``parameters``, by name, and an optimizer's state, however they lie over the processes.

    Every process calls these, in the same order; rank 0 alone gives and gets what is whole, the others {}.
    """

    parameters: dict[str, nn.Parameter]

    @abstractmethod
    def whole(self) -> dict[str, torch.Tensor]:
        """The masters; they may be the very ones that ``step`` changes."""

    @abstractmethod
    def load_masters(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put ``weights`` (float32, by name) into the masters and the model."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]: ...

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class MasterOptimizer(Masters):
    """Each parameter has a float32 master that ``step`` updates and copies back; of a piece, where it is cut.

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
        self.masters = {name: local(p.detach()).float().clone() for name, p in self.parameters.items()}
        self._cut = any(isinstance(p, DTensor) for p in self.parameters.values())
        self._gradients = [torch.zeros_like(master) for master in self.masters.values()]
        for master, gradient in zip(self.masters.values(), self._gradients, strict=True):
            master.grad = gradient
        self._inner = _inner(optimizer, by_factor(self.masters, rate_factors), weight_decay)

    def accumulate(self) -> None:
        """Move a micro-step's gradients into the masters'."""
        found = [(sum_, p.grad) for sum_, p in zip(self._gradients, self.parameters.values(), strict=True)]
        sums = [(sum_, gradient) for sum_, gradient in found if gradient is not None]
        if sums:
            torch._foreach_add_([sum_ for sum_, _ in sums], [local(gradient) for _, gradient in sums])
        for parameter in self.parameters.values():
            parameter.grad = None

    def clip(self, max_norm: float) -> float:
        """Scale gradients to ``max_norm`` at most; the answer is their norm before.

        The numbers are those of ``clip_grad_norm_``, which loops over the tensors in Python on a CPU.
        """
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(self._gradients)))
        if self._cut:
            norm = total(norm.square()).sqrt()
        torch._foreach_mul_(self._gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
        return float(norm)

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        for group in self._inner.param_groups:
            group["lr"] = learning_rate * group["factor"]
        self._inner.step()
        torch._foreach_copy_([local(p) for p in self.parameters.values()], list(self.masters.values()))
        torch._foreach_zero_(self._gradients)

    def whole(self) -> dict[str, torch.Tensor]:
        return for_first({name: partial(whole, self.masters[name], p) for name, p in self.parameters.items()})

    @torch.no_grad()
    def load_masters(self, weights: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in self.parameters.items():
            master = self.masters[name]
            tensor = from_first(weights.get(name), tuple(parameter.shape), master.dtype, master.device)
            master.copy_(piece(tensor, parameter))
            local(parameter).copy_(master)

    def state_dict(self) -> dict[str, Any]:
        state = self._inner.state_dict()
        if not self._cut:
            return state if is_first() else {}
        places = [(place, key) for place, entry in state["state"].items() for key in entry]
        found = for_first(
            {at: partial(_whole_state, state["state"][at[0]][at[1]], self._ordered[at[0]]) for at in places}
        )
        gathered: dict[int, dict[str, Any]] = {}
        for (place, key), value in found.items():
            gathered.setdefault(place, {})[key] = value
        return {**state, "state": gathered} if is_first() else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if alone():
            self._inner.load_state_dict(state)
            return

        def keep(path: tuple[Any, ...], tensor: torch.Tensor) -> torch.Tensor:
            return piece(tensor, self._ordered[path[1]]) if tensor.dim() else tensor

        device = next(iter(self.masters.values())).device
        self._inner.load_state_dict(spread(state, device, keep))

    @property
    def _ordered(self) -> list[nn.Parameter]:
        """The parameters as the optimizer numbers their masters in its state."""
        by_master = {id(self.masters[name]): p for name, p in self.parameters.items()}
        return [by_master[id(master)] for group in self._inner.param_groups for master in group["params"]]


def by_factor(
    tensors: Mapping[str, torch.Tensor], rate_factors: Mapping[str, float] | None
) -> list[dict[str, Any]]:
    """Groups as torch's optimizers take them, each with the ``factor`` of its learning rate."""
    groups: dict[float, list[torch.Tensor]] = {}
    for name, tensor in tensors.items():
        groups.setdefault((rate_factors or {}).get(name, 1.0), []).append(tensor)
    return [{"params": members, "factor": factor} for factor, members in groups.items()]


def _whole_state(value: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
    return whole(value, parameter) if value.dim() else value  # but for the count of steps


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
