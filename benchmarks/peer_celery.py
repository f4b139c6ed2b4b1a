"""Plain Celery that starts the same trainer from a task: what ``benchmarks.jobs`` has for a peer.

It keeps no row, no lease and no event, publishes nothing, and a worker that is lost has lost its job.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from celery import Celery

from app.core.entities.training_config import TrainingConfig
from app.utils.clock import boottime

TASK = "peer.train"


def peer(redis_url: str | None, folder: Path) -> Celery:
    """Celery's defaults, but for its file broker's look each second: our worker's takes a tenth of that."""
    broker = folder / "broker"
    broker.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"broker_url": redis_url}
    if redis_url is None:
        places = dict.fromkeys(("data_folder_in", "data_folder_out", "control_folder"), str(broker))
        options = {
            "broker_url": "filesystem://localhost",
            "broker_transport_options": {**places, "polling_interval": 0.1},
        }
    celery = Celery("peer", set_as_current=False)
    celery.conf.update(task_default_queue="peer", worker_hijack_root_logger=False, **options)

    @celery.task(name=TASK)
    def train(number: int) -> None:
        _train(folder / "results" / f"job-{number}")

    return celery


def _train(run_folder: Path) -> None:
    attempt = run_folder / "attempts" / "1"
    attempt.mkdir(parents=True)
    job = {
        "job_id": run_folder.name,
        "attempt": 1,
        "runner": "double",
        "processes": 1,
        "config": TrainingConfig(experiment_name="double-ok").model_dump(mode="json"),
        "base_model_folder": str(run_folder),
        "dataset_folder": str(run_folder),
        "run_folder": str(run_folder),
        "threads": 1,
        "deadline": boottime() + 600,
    }
    path = attempt / "job.json"
    path.write_text(json.dumps(job))
    heard, ring = os.pipe()
    control, say = os.pipe()
    command = [sys.executable, "-m", "app.processes.trainer", str(path), "--ring", str(ring)]
    with (run_folder / "logs.txt").open("ab") as log:
        subprocess.run(
            [*command, "--control", str(control)],
            check=True,
            stdout=log,
            stderr=log,
            pass_fds=(ring, control),
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    for end in (heard, ring, control, say):
        os.close(end)


def __getattr__(name: str) -> Any:
    """``app``, made when a worker asks for it: by ``PEER_FOLDER`` and ``PEER_REDIS``."""
    if name != "app":
        raise AttributeError(name)
    return peer(os.environ.get("PEER_REDIS"), Path(os.environ["PEER_FOLDER"]))
