"""Checkpoints: a folder that appears whole, by rename, or not at all."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from app.implementations.training.optimizer import MasterOptimizer
from app.utils.folders import fresh_neighbour, manifest_of, move_into_place, remove_folder, seal, sha256_of

Weights = Mapping[str, torch.Tensor]

_NAME = re.compile(r"^step-\d{8}$")


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands: ``step`` optimizer steps done in all, and what it has counted so far."""

    step: int
    counters: Mapping[str, Any]


def save_checkpoint(
    folder: Path, optimizer: MasterOptimizer, position: Position, best: Weights | None, keep: int
) -> Path:
    """Write ``folder/step-…``, then remove all but the newest ``keep``. Float32 masters, not the model's copies.

    ``best`` are the weights with the lowest validation loss, where they may be wanted back.
    """
    target = folder / f"step-{position.step:08d}"
    building = fresh_neighbour(target)
    save_file(_on_cpu(optimizer.masters), building / "adapter.safetensors")
    if best is not None:
        save_file(_on_cpu(best), building / "best.safetensors")
    torch.save(optimizer.state_dict(), building / "optimizer.pt")
    seal(building, {"step": position.step, "counters": position.counters})
    remove_folder(target)
    move_into_place(building, target)
    for older in _all(folder)[:-keep]:
        remove_folder(older)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest one that is what its manifest says; a damaged one is passed over."""
    return next((path for path in reversed(_all(folder)) if _whole(path)), None)


def load_checkpoint(path: Path, optimizer: MasterOptimizer) -> tuple[Position, Weights | None]:
    """Put a whole checkpoint into the optimizer and its model; the answer is where it stands, and ``best``."""
    manifest = manifest_of(path) or {}
    optimizer.load_masters(load_file(path / "adapter.safetensors"))
    optimizer.load_state_dict(torch.load(path / "optimizer.pt", weights_only=True))
    best = load_file(path / "best.safetensors") if (path / "best.safetensors").is_file() else None
    return Position(manifest["step"], manifest["counters"]), best


def _on_cpu(weights: Weights) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if _NAME.match(path.name))


def _whole(path: Path) -> bool:
    manifest = manifest_of(path)
    if manifest is None:
        return False
    return all(sha256_of(path / name) == entry["sha256"] for name, entry in manifest["files"].items())
