"""Where a job's processes meet, before and for torch.distributed."""

import json
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Any

import torch.distributed as dist
from torch.distributed import FileStore, PrefixStore, Store, rendezvous  # type: ignore[attr-defined]

from app.core.entities.trainer import Placement

# What a process waits for another. A checkpoint of a large model is written while the others wait.
PATIENCE = timedelta(minutes=10)
JOB = "job"  # the key of the job file


@cache
def store_of(placement: Placement) -> Store:
    """A file of the attempt's folder for processes of one host; the store that torchrun names across hosts."""
    if placement.rendezvous.startswith("file://"):
        return FileStore(placement.rendezvous.removeprefix("file://"), placement.processes)
    store, _, _ = next(rendezvous(placement.rendezvous, timeout=PATIENCE))
    return store


def share_job(placement: Placement, raw: Mapping[str, Any]) -> None:
    """Rank 0's, for processes that no worker gave one."""
    store_of(placement).set(JOB, json.dumps(raw))


def receive_job(placement: Placement) -> dict[str, Any]:
    """Waits for ``share_job``."""
    job: dict[str, Any] = json.loads(store_of(placement).get(JOB))
    return job


def meet(placement: Placement, backend: str) -> None:
    """Returns when all are there; raises ``RuntimeError`` when one does not come."""
    dist.init_process_group(
        backend,
        store=PrefixStore("training", store_of(placement)),
        rank=placement.rank,
        world_size=placement.processes,
        timeout=PATIENCE,
    )
