"""``python run.py`` up, a token, a job, its answers, down: on SQLite alone, and on PostgreSQL and Redis."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.implementations.serving.addresses import read_own_engines
from app.scripts import openai_guide
from tests.e2e.conftest import PASSWORD

WAIT_SECONDS = 120
QUESTION = {"role": "user", "content": "When opens shop 3?"}
LONG = 1500  # tokens
RUNNING, MADE = r"engine_\w*requests_running", r"engine_generat\w+_tokens_total"


def told(response: httpx.Response) -> Iterator[dict[str, Any]]:
    assert response.status_code == 200, response.read()
    assert response.headers["content-type"].startswith("text/event-stream")
    for line in response.iter_lines():
        assert not line or line.startswith("data: "), line
        if line:
            yield json.loads(line.removeprefix("data: "))


def chat(service: httpx.Client, instance: Path) -> None:
    """Whole and as it comes, of a version and of its base; several texts; and a client that goes away."""
    for model in ("shops:1", "tiny-random"):
        body = {"messages": [QUESTION], "model": model, "max_tokens": 12}
        whole = service.post("/chat", json=body)
        assert whole.status_code == 200, whole.text
        with service.stream("POST", "/chat", json={**body, "stream": True}) as response:
            *pieces, last = told(response)
        assert "".join(piece["content"] for piece in pieces) == whole.json()["message"]["content"]
        assert last == {key: whole.json()[key] for key in ("finish_reason", "model", "usage")}
        assert last["model"] == model

    texts = [f"When opens shop {number}?" for number in (1, 2, 3)]
    several = service.post("/predict", json={"texts": texts, "max_length": 8, "model": "shops"})
    one = service.post("/predict", json={"text": texts[2], "max_length": 8, "model": "shops"})
    assert [len(several.json()["predictions"]), several.json()["predictions"][2]] == [3, one.json()]

    too_long = service.post("/chat", json={"messages": [{**QUESTION, "content": "shop " * 9000}], "stream": True})
    assert (too_long.status_code, "context" in too_long.json()["detail"]) == (422, True)

    made = figure(instance, MADE)
    endless = {"messages": [QUESTION], "max_tokens": LONG, "ignore_eos": True, "temperature": 1, "seed": 1}
    with service.stream("POST", "/chat", json={**endless, "stream": True}) as response:
        next(told(response))
    with pytest.raises(httpx.ReadTimeout):
        service.post("/chat", json=endless, timeout=0.2)
    deadline = time.monotonic() + WAIT_SECONDS
    while figure(instance, RUNNING) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert figure(instance, RUNNING) == 0
    assert figure(instance, MADE) - made < LONG


def figure(instance: Path, name: str) -> float:
    """What the engine says of itself: the sum over labels."""
    own = read_own_engines(instance)
    url, secret = own.engines["tiny-random"], own.secret
    said = httpx.get(f"{url}/metrics", headers={"authorization": f"Bearer {secret}"}).text
    found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", said, re.MULTILINE)
    assert found, said
    return sum(map(float, found))


def guide(service: httpx.Client, token: str) -> None:
    """OpenAI's, with the official client, from the upload to the deletion."""
    address = str(service.base_url).rstrip("/").replace("/api/v1", "/v1")
    arguments = ["--base_url", address, "--api_key", token, "--model", "tiny-random", "--n_epochs", "2"]
    assert openai_guide.main(arguments) == 0
    listed = service.get(f"{address}/models").json()["data"]
    assert [one["id"] for one in listed] == ["tiny-random", "ft:tiny-random:default:shops:1"]


def test_train_and_predict(service: httpx.Client, tmp_path: Path) -> None:
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
    chat(service, tmp_path / "instance")
    guide(service, answer["access_token"])
