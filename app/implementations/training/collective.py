"""What a run's processes tell each other. Every process calls these, in the same order; alone, they do nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_flatten_with_path, tree_unflatten

T = TypeVar("T")
K = TypeVar("K")
Path = tuple[Any, ...]  # of keys


@dataclass(frozen=True, slots=True)
class _Coming:
    """Stands for a tensor that is sent by itself."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def alone() -> bool:
    return not dist.is_initialized() or dist.get_world_size() == 1


def is_first() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def first(value: T) -> T:
    """Rank 0's, in every process. It is pickled: for small things."""
    if alone():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def from_first(
    tensor: torch.Tensor | None, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Rank 0's tensor, on ``device``; what the others give is not looked at."""
    if alone() and tensor is not None:
        return tensor.to(device)
    sent = tensor.to(device).contiguous() if tensor is not None and is_first() else torch.empty(shape, dtype=dtype)
    sent = sent.to(device)
    dist.broadcast(sent, src=0)
    return sent


def spread(tree: Any, device: torch.device, keep: Callable[[Path, torch.Tensor], Any]) -> Any:
    """Rank 0's nest of dicts and lists, its tensors one at a time: in each stands what ``keep`` makes of it.

    So no process but the first ever holds more than one of them whole.
    """
    found, shape = tree_flatten_with_path(tree)
    leaves = [value for _, value in found]
    paths: list[Path] = [
        tuple(getattr(key, "key", getattr(key, "idx", None)) for key in path) for path, _ in found
    ]
    heads = [_Coming(tuple(v.shape), v.dtype) if isinstance(v, torch.Tensor) else v for v in leaves]
    heads, paths, shape = first((heads, paths, shape))
    kept = []
    for number, (path, head) in enumerate(zip(paths, heads, strict=True)):
        if not isinstance(head, _Coming):
            kept.append(head)
            continue
        own = leaves[number] if is_first() else None
        kept.append(keep(path, from_first(own, head.shape, head.dtype, device)))
    return tree_unflatten(kept, shape)


def total(tensor: torch.Tensor) -> torch.Tensor:
    """Summed over the processes."""
    if not alone():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's piece of what FSDP2 has cut, else the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(piece: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Of pieces that are cut as ``parameter`` is."""
    if not isinstance(parameter, DTensor):
        return piece
    mesh, placements = parameter.device_mesh, parameter.placements
    made = DTensor.from_local(piece, mesh, placements, shape=parameter.shape, stride=parameter.stride())
    return made.full_tensor()


def piece(tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """This process's, of a whole tensor that every process has."""
    if not isinstance(parameter, DTensor):
        return tensor
    cut = distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return cut.to_local()


def for_first(tensors: Mapping[K, Callable[[], torch.Tensor]]) -> dict[K, torch.Tensor]:
    """What the calls give, in rank 0; {} elsewhere. Each is made by all, as it may gather."""
    found = {}
    for name, gather in tensors.items():
        tensor = gather()
        if is_first():
            found[name] = tensor.detach()
    return found
