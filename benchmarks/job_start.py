"""From ``POST`` to the first optimizer step: ``python -m benchmarks.job_start`` (``make bench-job-start``).

Small jobs on the starter model are sent to the service, one after another: with a spare trainer waiting (warm) and
without spare trainers (cold). The peer is a script that imports torch, transformers and PEFT, loads the model and
makes one step on a row of the same data; its time is from its start on. All have as many threads as a trainer of
the service. What a first job does and others need not, like the check of the data, is done by a job before.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import httpx
import psutil

from app.bootstrap import build_base_models, load_settings
from app.scripts.demo import running_service
from benchmarks.arithmetic import markdown_table
from benchmarks.processes import ROOT, say

MODEL = "smollm2-135m-instruct"
ROWS = 40  # of the sample data
CONFIG = {
    "num_epochs": 1,
    "train_samples": 2,
    "batch_size": 1,
    "max_length": 256,
    "lora": {"r": 8},
    "sample_prompts": [],
}
DATA = "data/raw/rows.json"


def main() -> None:
    options = _options()
    settings = load_settings()
    base = build_base_models(settings).folder(MODEL)
    readings: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-job-start-") as name:
        folder = Path(name)
        rows = _rows(folder)
        for title, spares in (("warm: a spare trainer waits", True), ("cold: no spare trainers", False)):
            with _service(folder, settings.models_dir, spares) as client:
                say(f"{title}: {options.jobs} jobs")
                _seconds(client)  # of which it learns what can be kept
                readings[title] = []
                for _ in range(options.jobs):
                    if spares:
                        _wait_for_spare()
                    readings[title].append(_seconds(client))
    say(f"the peer: {options.jobs} starts")
    peer = [_script(base, rows[0], settings.trainer_threads) for _ in range(options.jobs)]
    readings["a cold script: imports, model, one step"] = peer
    print(table(readings, settings.trainer_threads))


def table(readings: dict[str, list[float]], threads: int) -> str:
    """Seconds: the median, the least and the most of each."""
    figures = [
        (title, *(f"{value:.2f}" for value in (statistics.median(found), min(found), max(found))))
        for title, found in readings.items()
    ]
    head = ("POST to the first optimizer step", "median, s", "least", "most")
    return f"{MODEL}, {threads} thread(s), one row of at most 256 tokens\n\n{markdown_table(head, figures)}"


def _rows(folder: Path) -> Sequence[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads((ROOT / "data/raw/sample_data.json").read_text("utf-8"))[:ROWS]
    raw = folder / "data" / "raw"
    raw.mkdir(parents=True)
    (raw / "rows.json").write_text(json.dumps(rows), "utf-8")
    return rows


@contextmanager
def _service(folder: Path, models: Path, spares: bool) -> Iterator[httpx.Client]:
    """``python run.py`` without an engine, on the models of this machine and nothing else of it."""
    password = secrets.token_hex(16)
    own = folder / ("warm" if spares else "cold")
    own.mkdir()
    os.environ |= {
        "INSTANCE_DIR": str(own / "instance"),
        "RESULTS_DIR": str(own / "results"),
        "DATA_DIR": str(folder / "data"),
        "MODELS_DIR": str(own / "models"),
        "ADMIN_PASSWORD": password,
        "SPARE_TRAINERS": json.dumps(spares),
        "ENGINE_BASE_MODEL": MODEL,
        "ENGINES": json.dumps({MODEL: "http://127.0.0.1:9"}),  # nobody's
    }
    (own / "models").mkdir()
    (own / "models" / "base").symlink_to(models / "base")
    with running_service(own / "log.txt") as url, httpx.Client(base_url=url, timeout=300) as client:
        answer = client.post("/api/v1/auth/token", json={"username": "admin", "password": password})
        client.headers["Authorization"] = f"Bearer {answer.raise_for_status().json()['access_token']}"
        yield client


def _seconds(client: httpx.Client) -> float:
    """Of one job, by the clock of this machine, which the trainer's events tell too. Returns at the job's end."""
    body = {"base_model": MODEL, "dataset_path": DATA, "config": CONFIG}
    sent = time.time()
    job = client.post("/api/v1/train", json=body).raise_for_status().json()["task_id"]
    with client.stream("GET", f"/api/v1/train/{job}/events/stream") as stream:
        events = [json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line[:6] == "data: "]
    if events[-1].get("status") != "succeeded":
        raise SystemExit(f"the job has not succeeded: {events[-1]}")
    first = next(event for event in events if event.get("type") == "metrics" and event["data"]["step"] == 1)
    return datetime.fromisoformat(first["created_at"]).timestamp() - sent


def _wait_for_spare() -> None:
    """Until a spare trainer below this process waits for its job: Linux says that it reads a pipe."""
    while not any(_waits(process) for process in psutil.Process().children(recursive=True)):
        time.sleep(0.1)


def _waits(process: psutil.Process) -> bool:
    with suppress(psutil.Error, OSError):  # it has just ended
        if "app.processes.spare" in process.cmdline():
            return "pipe" in Path(f"/proc/{process.pid}/wchan").read_text("ascii")
    return False


def _script(base: Path, row: dict[str, object], threads: int) -> float:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "benchmarks.run_cold_script", str(base), json.dumps(row["messages"])]
    sent = time.time()
    run = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(run.stdout.split()[-1]) - sent


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.job_start", description=__doc__.split("\n\n")[0])
    parser.add_argument("--jobs", type=int, default=10, help="of each kind (default 10)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
