"""One process, one device."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from app.implementations.training.method import Objective, Strategy
from app.implementations.training.objective_module import ObjectiveModule
from app.implementations.training.optimizer import MasterOptimizer


class SingleProcess(Strategy):
    """How a step's work is spread: here, not at all."""

    def wrap(self, objective: Objective, device: torch.device) -> nn.Module:
        return ObjectiveModule(objective).to(device)

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def backward(self, loss: torch.Tensor, optimizer: MasterOptimizer) -> None:
        torch.autograd.backward(loss)
        optimizer.accumulate()

    def step(self, optimizer: MasterOptimizer, learning_rate: float, max_grad_norm: float) -> float:
        norm = optimizer.clip(max_grad_norm)
        optimizer.step(learning_rate)
        return norm

    def total(self, sums: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return sums

    def agree(self, flag: bool) -> bool:
        return flag
