"""Which of a job's processes one is, and what of the host is its own."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.core.entities.trainer import Placement
from app.implementations.queue.trainer_launcher import THREAD_VARIABLES

TORCHRUN = "env://"  # where torchrun's processes meet


def torchrun_placement(environment: Mapping[str, str]) -> Placement | None:
    """What torchrun, or whoever starts processes as it does, says of this one; None: it was not started so."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        return None
    rank, processes = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    return Placement(rank, processes, int(environment.get("LOCAL_RANK", "0")), TORCHRUN)


def placement_of(raw: Mapping[str, Any], folder: Path, rank: int) -> Placement:
    """Of a job's rank on this host, or what torchrun says where it has started as many as the job wants."""
    processes = raw["processes"]
    around = torchrun_placement(os.environ)
    if around is not None and around.processes == processes > 1:
        return around
    return Placement(rank, processes, rank, f"file://{folder / 'rendezvous'}")


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_of_threads(threads: int, placement: Placement) -> int:
    """Of this host's for the job; also told to libraries that are yet to be loaded."""
    here = (
        int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if placement.rendezvous == TORCHRUN else placement.processes
    )
    share = max(1, threads // here)
    os.environ |= dict.fromkeys(THREAD_VARIABLES, str(share))
    return share
