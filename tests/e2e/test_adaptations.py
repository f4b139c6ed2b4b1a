"""QLoRA, a whole model and training on from a version, over HTTP: what is trained, what is refused."""

import time
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import PASSWORD

WAIT_SECONDS = 120
DATA = "data/raw/shops.json"
QUICK = {"num_epochs": 1, "batch_size": 4, "warmup_steps": 0, "precision": "fp32"}


def train(service: httpx.Client, **config: Any) -> dict[str, Any]:
    submitted = service.post("/train", json={"dataset_path": DATA, "config": {**QUICK, **config}})
    assert submitted.status_code == 202, submitted.text
    job = submitted.json()["task_id"]
    deadline = time.monotonic() + WAIT_SECONDS
    status = service.get(f"/train/status/{job}").json()
    while status["status"] not in ("succeeded", "failed", "cancelled") and time.monotonic() < deadline:
        time.sleep(0.2)
        status = service.get(f"/train/status/{job}").json()
    assert status["status"] == "succeeded", status
    return dict(status)


def refused(service: httpx.Client, **config: Any) -> str:
    answer = service.post("/train", json={"dataset_path": DATA, "config": config})
    assert answer.status_code == 422, answer.text
    return answer.text


@pytest.mark.parametrize("service", ["sqlite"], indirect=True)
def test_each_adaptation_over_http(service: httpx.Client) -> None:
    answer = service.post("/auth/token", json={"username": "admin", "password": PASSWORD}).json()
    service.headers["Authorization"] = f"Bearer {answer['access_token']}"
    question = {"text": "When opens shop 3?", "max_length": 8, "temperature": 0}

    assert "lora.use_dora: not with adaptation: full" in refused(service, adaptation="full", use_dora=True)
    assert "model_not_found" in refused(service, from_version="shops")

    four_bits = train(service, adaptation="qlora", model_name="shops", r=4)
    memory = four_bits["metrics"]["memory_by_part"]
    assert memory["weights"] < train(service)["metrics"]["memory_by_part"]["weights"]
    tuned = service.post("/predict", json={**question, "model": "shops:1"})
    assert tuned.status_code == 200, tuned.text

    on = train(service, from_version="shops", adaptation="lora", model_name="shops", learning_rate=1e-9)
    assert (on["config"]["from_version"], on["config"]["lora"]["r"]) == ("shops:1", 4)
    assert on["metrics"]["train_loss"] < four_bits["metrics"]["train_loss"]
    assert "contradicts_version" in refused(service, from_version="shops", adaptation="full")

    train(service, adaptation="full", model_name="whole")
    answer = service.post("/predict", json={**question, "model": "whole"})
    assert answer.status_code == 200, answer.text  # by an engine of its own, which this request has started
    assert answer.json()["model"] == "whole:1"
