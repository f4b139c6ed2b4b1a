"""What strategies of many processes share: how they meet, sum and agree."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from app.core.entities.trainer import Placement
from app.core.entities.training_config import TrainingConfig
from app.core.errors import Invalid
from app.implementations.training.collective import total
from app.implementations.training.method import Strategy
from app.implementations.training.rendezvous import meet

BACKENDS = {"cuda": "nccl", "cpu": "gloo"}


class ManyProcesses(Strategy):
    def join(
        self, config: TrainingConfig, placement: Placement, device: torch.device, options: Mapping[str, Any]
    ) -> None:
        """Meet the others. ``Invalid`` for a device that they cannot share."""
        if device.type not in BACKENDS:
            raise Invalid(f"strategy {config.strategy} has no way over {device.type}: set device to cpu")
        if device.type == "cuda":
            if placement.local_rank >= torch.cuda.device_count():
                raise Invalid(
                    f"processes: each wants a GPU, and this host has {torch.cuda.device_count()}: set fewer",
                    code="device_missing",
                )
            torch.cuda.set_device(placement.local_rank)
        elif placement.rendezvous.startswith("file://"):  # on one host nothing need leave it
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
        self.config, self.placement, self.device, self.options = config, placement, device, options
        meet(placement, BACKENDS[device.type])
        self.rank, self.processes = placement.rank, placement.processes

    def leave(self) -> None:
        dist.barrier()
        dist.destroy_process_group()

    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def total(self, sums: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: total(sums[name].detach()) for name in sorted(sums)}

    def agree(self, flag: bool) -> bool:
        return bool(total(torch.tensor(int(flag), device=self.device)))


def repeated_layers(module: nn.Module) -> Iterator[nn.Module]:
    """The decoder's layers, or the encoder's: what the outermost lists of modules hold."""
    for child in module.children():
        yield from child if isinstance(child, nn.ModuleList) else repeated_layers(child)
