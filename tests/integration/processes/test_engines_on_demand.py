"""``python run.py`` starts engines when they are asked for: other bases, whole models, label heads."""

import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
import yaml
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from transformers import AutoModelForCausalLM

from app.core.entities.identity import DEFAULT_PROJECT_ID
from app.core.entities.models import ModelVersion
from app.implementations.data.encoder_tokenizer import load_tokenizer
from app.implementations.models.lean_peft import LoraConfig, get_peft_model
from app.implementations.models.loading import ClassifierLoader
from app.implementations.registry.artifacts import FolderArtifactStore
from app.processes.engine_folders import PROCESS_BYTES
from app.repositories.mapping import version_row
from tests.integration.processes.test_supervisor import ready
from tests.running_service import BASE, PASSWORD, MakeService, Service, at_large, wait_until
from tests.serving_models import write_base

LABELS = ("defect", "delivery", "refund")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")
CATALOGUE = {
    BASE: {"source": "random", "location": "llama"},
    "tiny-other": {"source": "random", "location": "qwen2"},
    "tiny-gone": {"source": "random", "location": "llama"},
}
MIB = 2**20


@pytest.fixture
def service(make_service: MakeService, tmp_path: Path) -> Service:
    """Room for two engines on demand; the base's own is nobody's."""
    (tmp_path / "config").mkdir()
    catalogue = tmp_path / "config" / "base_models.yaml"
    catalogue.write_text(yaml.safe_dump(CATALOGUE))
    made = make_service(
        base_models_file=catalogue,
        engine_precision="fp32",
        engine_kernels="torch",
        engine_kv_bytes=8 * MIB,
        engine_adapter_bytes=8 * MIB,
        engines_bytes=2 * (PROCESS_BYTES + 20 * MIB),
        engine_timeout=90,
        cpu_threads=1,  # two that wait for each other crawl when other processes want the cores
    )
    shutil.rmtree(made.settings.models_dir / "base")
    for name in (BASE, "tiny-other"):
        made.services.models.pull(name)
    return made


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    write_base(tmp_path / "whole")
    return tmp_path / "whole"


@pytest.fixture
def headed(service: Service, tmp_path: Path) -> Path:
    """A label head and its adapter over the base, as a job leaves them."""
    base, folder = service.settings.models_dir / "base" / BASE, tmp_path / "headed"
    torch.manual_seed(5)
    model = ClassifierLoader(LABELS).load(base, torch.float32)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="SEQ_CLS", init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder)
    model.config.save_pretrained(folder)
    for name in TOKENIZER:
        if (base / name).exists():
            shutil.copy(base / name, folder)
    return folder


def publish(service: Service, name: str, folder: Path, base: str = BASE, **config: Any) -> None:
    artifacts = FolderArtifactStore(service.settings.models_dir / "registry").publish(f"id-{name}", folder)
    version = ModelVersion(
        id=f"id-{name}",
        project_id=DEFAULT_PROJECT_ID,
        name=name,
        number=1,
        base_model=base,
        template_hash=load_tokenizer(folder).template_hash,
        artifacts=artifacts,
        job_id=None,
        dataset_digest="d",
        config=config,
        metrics={},
        created_by=None,
        created_at=datetime.now(UTC),
    )
    engine = create_engine(service.settings.database_uri)
    with Session(engine) as session, session.begin():
        session.add(version_row(version))
    engine.dispose()


class Asker:
    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def log_in(self, address: str) -> None:
        self._http.base_url = httpx.URL(f"{address}/api/v1")
        user = {"username": "admin", "password": PASSWORD}
        token = self._http.post("/auth/token", json=user).json()["access_token"]
        self._http.headers["Authorization"] = f"Bearer {token}"

    def chat(self, model: str) -> httpx.Response:
        return self._http.post("/chat", json={"model": model, "messages": [{"role": "user", "content": "Hi"}]})

    def labels(self, model: str, texts: Sequence[str]) -> Any:
        return self._http.post("/predict", json={"texts": texts, "model": model}).json()["predictions"]

    def predict(self, model: str, **body: Any) -> httpx.Response:
        return self._http.post("/predict", json={"text": "Where is my parcel?", "model": model, **body})

    def answer(self, model: str) -> Any:
        response = self.predict(model, max_length=8)
        assert response.status_code == 200, response.text
        return response.json()

    def engines(self) -> Any:
        return self._http.get("/monitor/ready").json()["engines"]


@pytest.fixture
def asker() -> Iterator[Asker]:
    with httpx.Client(timeout=120) as http:
        yield Asker(http)


def engines(run: subprocess.Popen[bytes]) -> Sequence[psutil.Process]:
    children = [child for child in psutil.Process(run.pid).children() if at_large(child)]
    return [child for child in children if "app.processes.engine" in child.cmdline()]


def model_of(process: psutil.Process) -> str:
    words = process.cmdline()
    return words[words.index("--version" if "--version" in words else "--base_model") + 1]


def greedy(folder: Path, text: str) -> str:
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode_prompt([{"role": "user", "content": text}])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    made = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)
    return tokenizer.decode([i for i in made[0, len(ids) :].tolist() if i not in tokenizer.stop_token_ids])


def test_engines_come_when_they_are_asked_for_and_make_room(
    service: Service, asker: Asker, whole: Path, headed: Path
) -> None:
    publish(service, "whole", whole, adaptation="full")
    publish(service, "tickets", headed, objective="classification")
    run = service.start("run.py")
    asker.log_in(ready(run))
    assert engines(run) == []

    with ThreadPoolExecutor(3) as pool:  # all wait for the one that starts
        answers = list(pool.map(asker.answer, ["whole"] * 3))
    assert {one["text"] for one in answers} == {greedy(whole, "Where is my parcel?")}
    assert answers[0]["model"] == "whole:1"
    assert [model_of(one) for one in engines(run)] == ["id-whole"]

    texts = ["Where is my parcel?", "It is broken.", "Money back, please!"]
    told = asker.labels("tickets", texts)
    alone = asker.answer("tickets")
    assert (len(told), told[0]) == (3, alone)
    assert alone.keys() == {"label", "scores", "model", "prompt_tokens"}
    assert alone["label"] == max(alone["scores"], key=alone["scores"].get)
    assert set(alone["scores"]) == set(LABELS)
    assert sum(alone["scores"].values()) == pytest.approx(1)
    assert sorted(map(model_of, engines(run))) == ["id-tickets", "id-whole"]
    assert asker.engines() == []  # versions are no bases

    before = {model_of(one): one for one in engines(run)}
    assert asker.answer("tiny-other")["model"] == "tiny-other"  # a base: whole, asked longest ago, makes room
    assert sorted(map(model_of, engines(run))) == ["id-tickets", "tiny-other"]
    assert not at_large(before["id-whole"])
    assert asker.engines() == ["tiny-other"]

    before["id-tickets"].kill()
    assert asker.answer("tickets") == alone
    assert asker.answer("whole")["text"] == answers[0]["text"]

    chat = asker.chat("tickets")
    assert (chat.status_code, chat.json()["code"]) == (422, "not_generative")

    gone = asker.predict("tiny-gone")
    assert (gone.status_code, gone.json()["code"]) == (503, "base_model_missing")
    everybody = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(signal.SIGTERM)
    assert run.wait(15) == 0
    wait_until(lambda: not any(at_large(process) for process in everybody), service.log)


def test_one_that_does_not_fit_or_does_not_start_is_told_at_once(
    service: Service, asker: Asker, whole: Path, tmp_path: Path
) -> None:
    big, broken = tmp_path / "big", tmp_path / "broken"
    for folder in (big, broken):
        shutil.copytree(whole, folder)
    with (big / "more.safetensors").open("wb") as weights:
        weights.truncate(2 * 2**30)  # a hole in the file: it is never read
    (broken / "model.safetensors").write_bytes(b"no weights")
    publish(service, "big", big, adaptation="full")
    publish(service, "broken", broken, adaptation="full")
    asker.log_in(ready(service.start("run.py")))
    refused = asker.predict("big").json()
    assert (refused["status"], refused["code"]) == (503, "base_not_resident")
    assert "ENGINES_BYTES" in refused["detail"]
    refused = asker.predict("broken").json()
    assert (refused["status"], refused["code"]) == (503, "base_not_resident")
    assert "ended as it started" in refused["detail"]
