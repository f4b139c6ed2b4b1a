"""One process, one device."""

import torch
from torch import nn

from app.implementations.training.optimizer import MasterAdamW


class SingleProcess:
    """How a step's work is spread: here, not at all."""

    rank = 0

    def wrap(self, objective: nn.Module, device: torch.device) -> nn.Module:
        return objective.to(device)

    def backward(self, loss: torch.Tensor, optimizer: MasterAdamW) -> None:
        torch.autograd.backward(loss)
        optimizer.accumulate()

    def step(self, optimizer: MasterAdamW, learning_rate: float, max_grad_norm: float) -> float:
        """Clip and update; the answer is the gradient's norm before clipping."""
        norm = optimizer.clip(max_grad_norm)
        optimizer.step(learning_rate)
        return norm
