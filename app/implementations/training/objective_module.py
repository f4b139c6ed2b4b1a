"""An objective as torch sees it."""

import torch
from torch import nn

from app.implementations.training.batches import PackedBatch
from app.implementations.training.method import Objective


class ObjectiveModule(nn.Module):
    """Calls the objective in its forward pass, so that a wrapper synchronises gradients whatever part of the model
    the objective calls."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective, self.model = objective, objective.model

    def forward(self, batch: PackedBatch) -> dict[str, torch.Tensor]:
        return self.objective(batch)
