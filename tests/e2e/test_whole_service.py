"""``python run.py`` up, a token, a job, a prediction, down: on SQLite alone, and on PostgreSQL and Redis."""

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
WAIT_SECONDS = 120


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


def test_train_and_predict(service: httpx.Client) -> None:
    refused = service.post("/train", json={"dataset_path": "data/raw/shops.json"})
    assert refused.status_code == 401
    answer = service.post("/auth/token", json={"username": "admin", "password": PASSWORD}).json()
    assert answer["token_type"].lower() == "bearer"
    service.headers["Authorization"] = f"Bearer {answer['access_token']}"

    config = {"num_epochs": 2, "batch_size": 4, "warmup_steps": 0, "model_name": "shops", "precision": "fp32"}
    submitted = service.post("/train", json={"dataset_path": "data/raw/shops.json", "config": config})
    assert submitted.status_code == 202, submitted.text
    job = submitted.json()["task_id"]

    deadline = time.monotonic() + WAIT_SECONDS
    status = service.get(f"/train/status/{job}").json()
    while status["status"] not in ("succeeded", "failed", "cancelled") and time.monotonic() < deadline:
        time.sleep(0.2)
        status = service.get(f"/train/status/{job}").json()
    assert status["status"] == "succeeded", status
    assert status["step"] == status["total_steps"] > 0

    versions = service.get("/models/shops/versions").json()
    assert [version["number"] for version in versions["data"]] == [1]
    question = {"text": "When opens shop 3?", "max_length": 8, "temperature": 0}
    tuned = service.post("/predict", json={**question, "model": "shops:1"})
    assert tuned.status_code == 200, tuned.text
    assert tuned.json()["model"] == "shops:1"
    base = service.post("/predict", json=question)
    assert base.status_code == 200, base.text
    assert base.json()["model"] == "tiny-random"
    assert service.post("/predict", json={**question, "model": "nobody"}).status_code == 404
