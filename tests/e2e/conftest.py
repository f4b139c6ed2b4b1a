"""``python run.py`` up on the tiny random base model, over SQLite alone or over PostgreSQL and Redis."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
READY = re.compile(r"is ready: (http://\S+)")
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory) -> Path:
    """models/ with the tiny random base model, as ``flask models pull`` lays it."""
    folder = tmp_path_factory.mktemp("models")
    environment = {**os.environ, "MODELS_DIR": str(folder), "INSTANCE_DIR": str(folder / "instance")}
    command = [sys.executable, "-m", "flask", "--app", "run", "models", "pull", "tiny-random"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return folder


@pytest.fixture(params=["sqlite", "postgres and redis"])
def service(request, tmp_path: Path, base_folder: Path) -> Iterator[httpx.Client]:
    environment = {
        **os.environ,
        "INSTANCE_DIR": str(tmp_path / "instance"),
        "DATA_DIR": str(tmp_path / "data"),
        "RESULTS_DIR": str(tmp_path / "results"),
        "MODELS_DIR": str(base_folder),
        "ENGINE_BASE_MODEL": "tiny-random",
        "DEFAULT_BASE_MODEL": "tiny-random",
        "ADMIN_PASSWORD": PASSWORD,
        "CPU_THREADS": "1",
        "PORT": "0",
    }
    if request.param != "sqlite":
        environment["DATABASE_URL"] = request.getfixturevalue("postgres_database")
        environment["REDIS_URL"] = request.getfixturevalue("redis_url")
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"When opens shop {number}?"},
                {"role": "assistant", "content": f"Shop {number} opens at {number} o'clock."},
            ]
        }
        for number in range(1, 13)
    ]
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / "shops.json").write_text(json.dumps(rows))
    process = subprocess.Popen(
        [sys.executable, "run.py"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        address = next(found[1] for line in process.stdout if (found := READY.search(line)))
        with httpx.Client(base_url=f"{address}/api/v1", timeout=60) as client:
            yield client
        below = psutil.Process(process.pid).children(recursive=True)
        asked = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(timeout=15)
        assert time.monotonic() - asked < 10
        _, alive = psutil.wait_procs(below, timeout=1)
        assert alive == []
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
