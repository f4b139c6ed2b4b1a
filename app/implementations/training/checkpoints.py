"""Checkpoints: a folder that appears whole, by rename, or not at all."""

import json
import re
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from app.implementations.training.optimizer import MasterAdamW
from app.utils.files import sync_folder, write_whole

_NAME = re.compile(r"^step-(\d{8})$")


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands: ``step`` optimizer steps done in all, and what it has counted so far."""

    step: int
    counters: dict[str, Any]


def save_checkpoint(folder: Path, optimizer: MasterAdamW, position: Position) -> Path:
    """Write ``folder/step-…``, then remove the ones before it."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{position.step:08d}"
    building = folder / f".{target.name}.tmp"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    save_file(
        {name: m.detach().cpu().contiguous() for name, m in optimizer.masters.items()},
        building / "adapter.safetensors",
    )
    torch.save(optimizer.state_dict(), building / "optimizer.pt")
    (building / "position.json").write_text(json.dumps({"step": position.step, "counters": position.counters}))
    sums = {path.name: _digest(path) for path in sorted(building.iterdir())}
    write_whole(building / "manifest.json", json.dumps(sums, indent=1))
    sync_folder(building)
    shutil.rmtree(target, ignore_errors=True)
    building.replace(target)
    sync_folder(folder)
    for older in _all(folder):
        if older != target:
            shutil.rmtree(older)
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest one whose manifest holds; a damaged one is passed over."""
    return next((path for path in reversed(_all(folder)) if _whole(path)), None)


def load_checkpoint(path: Path, optimizer: MasterAdamW) -> Position:
    optimizer.load_masters(load_file(path / "adapter.safetensors"))
    optimizer.load_state_dict(torch.load(path / "optimizer.pt", weights_only=True))
    raw = json.loads((path / "position.json").read_text())
    return Position(step=raw["step"], counters=raw["counters"])


def _all(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("step-*") if _NAME.match(p.name)) if folder.is_dir() else []


def _whole(path: Path) -> bool:
    try:
        sums = json.loads((path / "manifest.json").read_text())
        return bool(sums) and all(_digest(path / name) == digest for name, digest in sums.items())
    except (OSError, ValueError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        h = sha256()
        while chunk := file.read(1 << 20):
            h.update(chunk)
    return h.hexdigest()
