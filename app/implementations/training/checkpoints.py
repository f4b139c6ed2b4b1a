"""Checkpoints: a folder that appears whole, by rename, or not at all.

One holds the adapter's float32 masters, the optimizer's state, the position and what the run's numbers depend
on. Two things need no file: the learning rate is a pure function of the step, and random state is set anew
from (seed, step, micro-step, rank) before each forward pass, which alone draws from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from app.core.services.jobs.resuming import checkpoints_in
from app.core.services.jobs.room import needs_room
from app.utils.folders import building, manifest_of, remove_folder, seal

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands: ``step`` optimizer steps done in all, and what it has counted so far."""

    step: int
    counters: Mapping[str, Any]


def save_checkpoint(
    folder: Path,
    masters: Weights,
    state: Mapping[str, Any],
    position: Position,
    best: Weights | None,
    pins: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write ``folder/step-…``, then remove all but the newest ``keep``. Float32 masters, not the model's copies.

    ``state`` is the optimizer's; ``best`` are the weights with the lowest validation loss, where they may be
    wanted back. Raises ``DiskFull``; the older checkpoints are there then.
    """
    target = folder / f"step-{position.step:08d}"
    with needs_room("this checkpoint is not written"), building(target) as fresh:
        save_file(_on_cpu(masters), fresh / "adapter.safetensors")
        if best is not None:
            save_file(_on_cpu(best), fresh / "best.safetensors")
        # Given a path, torch's own writer says that a write failed, but not why.
        with (fresh / "optimizer.pt").open("wb") as file:
            torch.save(state, file)
        seal(fresh, {"step": position.step, "counters": position.counters, "pins": pins})
    for older in checkpoints_in(folder)[:-keep]:
        remove_folder(older)
    return target


def pins_of(path: Path) -> Mapping[str, Any]:
    """What the numbers of the run depended on when the checkpoint was written."""
    return (manifest_of(path) or {}).get("pins", {})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a whole one holds. ``best`` is None where nobody wants it back."""

    position: Position
    masters: Weights
    state: dict[str, Any]
    best: Weights | None


def read_checkpoint(path: Path) -> Checkpoint:
    manifest = manifest_of(path) or {}
    best = load_file(path / "best.safetensors") if (path / "best.safetensors").is_file() else None
    state = torch.load(path / "optimizer.pt", weights_only=True)
    position = Position(manifest["step"], manifest["counters"])
    return Checkpoint(position, load_file(path / "adapter.safetensors"), state, best)


def _on_cpu(weights: Weights) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
