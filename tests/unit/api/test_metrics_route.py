"""The curve of a job over HTTP: columns of one length, whatever was measured."""

import math
from datetime import UTC, datetime

import pytest

from app.core.entities.jobs import JobEvent

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def job(caller, twins):
    """An id, with 1,000 steps and a spike, a validation every 250, and a value that is not known."""
    job_id = caller("POST", "/api/v1/train", json={"dataset_path": "data/raw/sound.json"}).json["task_id"]
    said = []
    for step in range(1, 1001):
        loss = math.nan if step == 700 else 99.0 if step == 333 else 1.0
        said.append({"step": step, "total_steps": 1000, "loss": loss, "gpu_utilization": None})
        if step % 250 == 0:
            said.append({"step": step, "total_steps": 1000, "eval_loss": step / 1000})
    events = [JobEvent(seq, "metrics", "info", "", NOW, data) for seq, data in enumerate(said, 1)]
    twins.jobs.ingest(job_id, twins.jobs.claim("w", 30).fence, events, None)
    return job_id


def test_a_curve_in_columns(caller, job):
    answer = caller("GET", f"/api/v1/train/{job}/metrics?points=100").json
    assert (answer["events"], answer["width"], answer["names"]) == (1004, 16, ["eval_loss", "loss"])
    assert set(answer["series"]) == {"eval_loss", "loss"}
    assert 50 <= len(answer["steps"]) <= 100
    assert (answer["first_steps"][0], answer["steps"][-1]) == (1, 1000)
    for series in answer["series"].values():
        assert {len(column) for column in series.values()} == {len(answer["steps"])}
    loss, validation = answer["series"]["loss"], answer["series"]["eval_loss"]
    assert max(loss["max"]) == 99.0
    assert (sum(loss["known"]), sum(loss["nulls"])) == (999, 1)
    assert [value for value in validation["mean"] if value is not None] == [0.25, 0.5, 0.75, 1.0]


def test_every_step_where_there_are_few(caller, job):
    answer = caller("GET", f"/api/v1/train/{job}/metrics?points=2000&names=loss").json
    assert (answer["width"], answer["steps"]) == (1, list(range(1, 1001)))
    assert answer["series"]["loss"]["mean"][699:701] == [None, 1.0]


def test_names_that_are_asked_for(caller, job):
    answer = caller("GET", f"/api/v1/train/{job}/metrics?points=4&names=loss, margin,").json
    assert list(answer["series"]) == ["loss", "margin"]
    assert set(answer["series"]["margin"]["mean"]) == {None}
    assert answer["names"] == ["eval_loss", "loss"]


def test_a_job_that_has_measured_nothing(caller):
    job_id = caller("POST", "/api/v1/train", json={"dataset_path": "data/raw/sound.json"}).json["task_id"]
    assert caller("GET", f"/api/v1/train/{job_id}/metrics").json == {
        "events": 0,
        "width": 1,
        "names": [],
        "first_steps": [],
        "steps": [],
        "series": {},
    }


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("points=0", "points"),
        ("points=2001", "points"),
        ("names=", "names"),
        ("names=" + "x," * 51, "names"),
        ("name=x", "name"),
    ],
)
def test_queries_with_faults(caller, job, query, where):
    answer = caller("GET", f"/api/v1/train/{job}/metrics?{query}")
    assert answer.status_code == 422
    assert [fault["where"] for fault in answer.json["errors"]] == [where]
