"""Data parallelism (Li et al. 2020, arXiv:2006.15704): every process holds all of the model.

The buckets of DistributedDataParallel are summed while the backward pass goes on, in float32 and together with
what the micro-steps before left in the masters: a step's gradients travel once.
"""

from contextlib import AbstractContextManager

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import GradBucket  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from app.implementations.training.method import Objective
from app.implementations.training.objective_module import ObjectiveModule
from app.implementations.training.optimizer import MasterOptimizer
from app.implementations.training.strategies.many import ManyProcesses


class DataParallel(ManyProcesses):
    def wrap(self, objective: Objective, device: torch.device) -> nn.Module:
        self._wrapped = DistributedDataParallel(ObjectiveModule(objective).to(device), broadcast_buffers=False)
        self._wrapped.register_comm_hook(None, self._sum)
        self._masters: dict[int, torch.Tensor] = {}  # by the parameter's identity
        return self._wrapped

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        self._last = last
        return super().accumulating(last) if last else self._wrapped.no_sync()

    def backward(self, loss: torch.Tensor, optimizer: MasterOptimizer) -> None:
        if not self._masters:
            self._masters = {id(p): optimizer.masters[name] for name, p in optimizer.parameters.items()}
        torch.autograd.backward(loss)
        if self._last:  # the sums are in the masters already
            for parameter in optimizer.parameters.values():
                parameter.grad = None
        else:
            optimizer.accumulate()

    def step(self, optimizer: MasterOptimizer, learning_rate: float, max_grad_norm: float) -> float:
        norm = optimizer.clip(max_grad_norm)
        optimizer.step(learning_rate)
        return norm

    def _sum(self, _: None, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        """A bucket's gradients of the last micro-step, and what its masters hold → the sum of all in these."""
        sums = [self._masters[id(parameter)].grad for parameter in bucket.parameters()]
        for sum_, gradient in zip(sums, bucket.gradients(), strict=True):
            sum_.add_(gradient)  # type: ignore[union-attr]
        flat = torch.cat([sum_.flatten() for sum_ in sums])  # type: ignore[union-attr]
        work = dist.all_reduce(flat, async_op=True)

        def put(_: torch.futures.Future[list[torch.Tensor]]) -> torch.Tensor:
            for sum_, part in zip(sums, flat.split([sum_.numel() for sum_ in sums]), strict=True):  # type: ignore[union-attr]
                sum_.copy_(part.view_as(sum_))  # type: ignore[union-attr,arg-type]
            return bucket.buffer()

        return work.get_future().then(put)
