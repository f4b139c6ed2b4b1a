"""A job of each objective on data of its shape: submitted, trained in a real trainer with torch, published."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from app.core.entities.jobs import JobState
from app.core.entities.models import BaseModelSpec
from app.registries import BASE_MODEL_SOURCES
from tests.running_service import BASE, ROOT, Developer, MakeService, Service

PREFERENCES = (ROOT / "data/raw/sample_preferences.json").read_text("utf-8")
TRAINING_SECONDS = 300.0  # far beyond what it takes: a trainer imports torch on a machine that may be busy
TEXTS = json.dumps([{"text": f"Shop {place} opens at {place % 12}. " * 20} for place in range(20)])


@pytest.fixture
def service(make_service: MakeService) -> Service:
    made = make_service(trainer="torch", lease_seconds=60.0, cpu_threads=1)
    folder: Path = made.settings.models_dir / "base" / BASE
    shutil.rmtree(folder)
    folder.mkdir()
    BASE_MODEL_SOURCES.load("random")(BaseModelSpec(BASE, "random", "llama"), folder)
    made.worker()
    return made


def run(service: Service, rows: str, **config: Any) -> tuple[Any, list[dict[str, Any]]]:
    """The published version's metrics, and the metrics events of the job."""
    (service.settings.data_dir / "raw" / "rows.json").write_text(rows, "utf-8")
    settings = {"num_epochs": 2, "batch_size": 8, "warmup_steps": 0, "precision": "fp32", "model_name": "made"}
    job = service.wait_for(service.submit("objectives", **settings, **config), seconds=TRAINING_SECONDS)
    assert (job.state, job.error) == (JobState.SUCCEEDED, None), service.log()
    (version,) = service.services.models.versions(Developer, "made")
    assert version.id == job.model_version_id
    events = service.services.job_records.events(Developer, job.id)
    return version.metrics, [dict(event.data) for event in events if event.type == "metrics"]


def test_dpo_on_the_sample_preferences(service: Service) -> None:
    metrics, events = run(service, PREFERENCES, objective="dpo", dpo_beta=0.5, learning_rate=1e-2)

    first = events[0]
    assert first["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert first["margin"] == pytest.approx(0.0, abs=1e-3)
    assert metrics["eval_loss"] < 0.6931
    assert metrics["eval_margin"] > 0
    assert 0.5 <= metrics["eval_accuracy"] <= 1
    assert metrics["perplexity"] is None


def test_pretraining_on_plain_texts(service: Service) -> None:
    metrics, events = run(service, TEXTS, objective="pretrain", max_length=64, learning_rate=1e-2)

    assert events[-1]["step"] > 2 * 16 / 8  # texts are longer than 64 tokens: more rows than texts
    losses = [event["loss"] for event in events if "loss" in event]
    assert losses[-1] < losses[0]
    assert metrics["perplexity"] > 1
