"""``python run.py`` up, a token, a job, a prediction, down: on SQLite alone, and on PostgreSQL and Redis."""

import time

import httpx

from tests.e2e.conftest import PASSWORD

WAIT_SECONDS = 120


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
