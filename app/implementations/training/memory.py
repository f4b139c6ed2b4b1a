"""What a run holds in memory, by part, counted from the tensors themselves: alike on every device."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from app.implementations.training.batches import PackedBatch
from app.implementations.training.optimizer import MasterOptimizer


def memory_by_part(model: nn.Module, optimizer: MasterOptimizer) -> dict[str, int]:
    """Bytes: ``weights`` (those that do not learn), ``adapter`` (those that learn: as they compute, their float32
    masters, and a gradient of each) and ``optimizer`` (its state).

    Once a step has been made: the optimizer has no state before.
    """
    frozen = [p for p in model.parameters() if not p.requires_grad]
    learning = list(optimizer.parameters.values())
    masters = list(optimizer.masters.values())
    state = optimizer.state_dict()["state"]
    return {
        "weights": _bytes([*frozen, *model.buffers(), *_constants(frozen)]),
        "adapter": 2 * _bytes(learning) + 2 * _bytes(masters),
        "optimizer": _bytes(value for one in state.values() for value in one.values() if torch.is_tensor(value)),
    }


def saved_for_backward(wrapped: nn.Module, batch: PackedBatch) -> int:
    """Bytes that a forward pass keeps for the backward pass, the parameters left out. One pass is made for it.

    What lives within an operation only is not seen.
    """
    own = {p.untyped_storage().data_ptr() for p in wrapped.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()  # many a view of one storage is one
        return tensor

    wrapped.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found: Mapping[str, torch.Tensor] = wrapped(batch)  # held until here: a storage's address is its own
    total = sum(kept.values())
    del found
    return total


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Of their storages, each once."""
    storages = {storage.data_ptr(): storage.nbytes() for storage in (t.untyped_storage() for t in tensors)}
    return sum(storages.values())


def _constants(parameters: Iterable[nn.Parameter]) -> list[torch.Tensor]:
    """What turns quantised weights back into numbers."""
    states: list[Any] = [state for p in parameters if (state := getattr(p, "quant_state", None)) is not None]
    return [value for state in states for value in state.as_dict().values() if torch.is_tensor(value)]
