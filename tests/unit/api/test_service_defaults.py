"""A request's config is checked over the service's defaults, and a job remembers the default rate of its day."""

import io
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.core.entities.models import ModelVersion
from app.core.entities.training_config import TrainingConfig

ROWS = [
    {"messages": [{"role": "user", "content": one}, {"role": "assistant", "content": "!"}]} for one in ("a", "b")
]


@pytest.fixture
def set_defaults(services, monkeypatch):
    """As if train_config.yaml said so, and the service had been started anew."""

    def set_defaults(**changes):
        requests = services.training._requests  # as the estimates' too
        monkeypatch.setattr(requests, "defaults", requests.defaults.with_changes(**changes))

    return set_defaults


@pytest.fixture
def train(caller):
    def train(**config):
        return caller("POST", "/api/v1/train", json={"dataset_path": "data/raw/sound.json", "config": config})

    return train


@pytest.fixture
def tune(caller):
    def tune(model="tiny-random", **body):
        lines = "\n".join(map(json.dumps, ROWS)).encode()
        form = {"purpose": "fine-tune", "file": (io.BytesIO(lines), "train.jsonl")}
        file = caller("POST", "/v1/files", data=form).json["id"]
        return caller("POST", "/v1/fine_tuning/jobs", json={"model": model, "training_file": file, **body})

    return tune


@pytest.fixture
def tuned(twins):
    """A published version whose adapter has DoRA."""
    config = TrainingConfig(base_model="tiny-random", adaptation="lora", lora={"use_dora": True})
    version = ModelVersion(
        *("version-1", "default", "support", 0, "tiny-random", "t" * 64, "version-1", None, "d" * 64),
        *(config.model_dump(mode="json"), {}, None, datetime(2026, 11, 27, tzinfo=UTC)),
    )
    return twins.versions.publish(version)


def test_what_fits_the_services_defaults_is_taken(train, tune, set_defaults):
    assert train(processes=4).status_code == 422
    assert tune(processes=4).status_code == 400
    set_defaults(strategy="ddp", processes=2)
    accepted = train(processes=4)
    assert accepted.status_code == 202, accepted.json
    accepted = tune(processes=4)
    assert accepted.status_code == 200, accepted.json


def test_what_does_not_fit_the_services_defaults_is_named_with_the_rest(train, tune, set_defaults):
    set_defaults(strategy="fsdp")
    refused = train(optimizer="lamb", dataset_id="ds-" + "0" * 24)
    assert refused.status_code == 422
    assert "set optimizer to adamw" in json.dumps(refused.json["errors"])
    assert "given twice" in json.dumps(train(model={"num_epochs": 1}, num_epochs=2).json["errors"])
    refused = tune(optimizer="lamb", suffix="two words")
    assert refused.status_code == 400
    for says in ("set optimizer to adamw", "suffix"):
        assert says in refused.json["error"]["message"]


def test_a_version_to_begin_with_stands_above_the_defaults(train, tune, set_defaults, tuned):
    set_defaults(adaptation="full", objective="classification")
    on_from = {"objective": "sft", "from_version": tuned.reference, "use_dora": True}
    accepted = train(**on_from)
    assert accepted.status_code == 202, accepted.json
    accepted = tune(tuned.reference, use_dora=True)
    assert accepted.status_code == 200, accepted.json
    assert tune(use_dora=True).status_code == 400


def test_a_multiplier_stays_what_it_was(train, tune, caller, set_defaults, twins):
    given = {"hyperparameters": {"learning_rate_multiplier": 0.5}}
    half, plain = tune(**given).json["id"], train().json["task_id"]
    caller("POST", f"/v1/fine_tuning/jobs/{half}/cancel")
    again = caller("POST", f"/api/v1/train/{half}/retry").json["task_id"]
    older = twins.jobs.get("default", plain)
    set_defaults(learning_rate=0.005)
    again_later = caller("POST", f"/api/v1/train/{half}/retry").json["task_id"]

    def multiplier(job_id):
        shown = caller("GET", f"/v1/fine_tuning/jobs/{job_id}").json["hyperparameters"]
        return shown["learning_rate_multiplier"]

    assert [multiplier(job_id) for job_id in (half, again, again_later, plain)] == [0.5, 0.5, 0.5, 1.0]
    assert multiplier(tune(**given).json["id"]) == 0.5
    twins.jobs.add([replace(older, id="ftjob-" + "0" * 24, request={})])  # of a time when the rate was not kept
    assert multiplier("ftjob-" + "0" * 24) == older.config["learning_rate"] / 0.005
