"""Fully sharded data parallelism by FSDP2 (Zhao et al. 2023, arXiv:2304.11277).

Each process holds a piece of every parameter, of its master and of the optimizer's state; a decoder layer's
parameters are whole while it computes.
"""

from contextlib import AbstractContextManager

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from app.implementations.training.method import Objective
from app.implementations.training.objective_module import ObjectiveModule
from app.implementations.training.optimizer import MasterOptimizer
from app.implementations.training.strategies.many import ManyProcesses, repeated_layers


class FullySharded(ManyProcesses):
    """``options`` are those of config/fsdp.yaml."""

    keeps_whole = False

    def wrap(self, objective: Objective, device: torch.device) -> nn.Module:
        module = ObjectiveModule(objective)
        mesh = init_device_mesh(device.type, (self.processes,))
        for part in [*repeated_layers(module), module]:
            sharded: FSDPModule = fully_shard(
                part,
                mesh=mesh,
                reshard_after_forward=bool(self.options["reshard_after_forward"]),
                mp_policy=MixedPrecisionPolicy(reduce_dtype=torch.float32),
            )
            sharded.set_gradient_divide_factor(1.0)  # sums, where FSDP2 would take means
            sharded.set_force_sum_reduction_for_comms(True)  # gloo knows sums only
        self._root: FSDPModule = module  # type: ignore[assignment]  # fully_shard has made it one
        return module

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        self._root.set_requires_gradient_sync(last)
        return super().accumulating(last)

    def backward(self, loss: torch.Tensor, optimizer: MasterOptimizer) -> None:
        torch.autograd.backward(loss)
        optimizer.accumulate()

    def step(self, optimizer: MasterOptimizer, learning_rate: float, max_grad_norm: float) -> float:
        norm = optimizer.clip(max_grad_norm)
        optimizer.step(learning_rate)
        return norm
