"""What each route answers when all is well, and when the thing asked for is not there."""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.bootstrap import load_training_config
from app.core.entities.identity import DEFAULT_PROJECT_ID, Principal, Role
from app.core.entities.inference import AnswerOptions
from app.core.entities.jobs import JobError, JobEvent, JobState, Progress
from app.core.entities.limits import ProjectLimits
from app.core.entities.models import ModelVersion
from app.core.errors import Fault, NotFound, Unavailable

NOBODY = "ftjob-" + "0" * 24


def test_a_token_opens_the_routes(client, services):
    services.accounts.create_user("alice", "correct horse battery", Role.VIEWER)
    answer = client.post("/api/v1/auth/token", json={"username": "alice", "password": "correct horse battery"})
    assert answer.status_code == 200
    assert answer.json.keys() == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (answer.json["token_type"], answer.json["expires_in"]) == ("Bearer", 1800)
    assert answer.headers["Cache-Control"] == "no-store"
    headers = {"Authorization": f"Bearer {answer.json['access_token']}"}
    assert client.get("/api/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("username", ["alice", "nobody", "no such\nname"])
def test_a_wrong_log_in_looks_the_same_for_everyone(client, services, username):
    services.accounts.create_user("alice", "correct horse battery", Role.VIEWER)
    answer = client.post("/api/v1/auth/token", json={"username": username, "password": "wrong"})
    assert (answer.status_code, answer.json["code"]) == (401, "invalid_credentials")
    assert answer.json["detail"] == "the username or the password is wrong"
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_job_is_saved_and_rung_for(caller, twins, settings):
    body = {"dataset_path": "data/raw/sound.json", "config": {"num_epochs": 2, "r": 4}}
    answer = caller("POST", "/api/v1/train", json=body)
    assert answer.status_code == 202, answer.json
    job = twins.jobs.get(DEFAULT_PROJECT_ID, answer.json["task_id"])
    assert answer.json["status"] == "validating_files"
    assert (job.config["num_epochs"], job.config["lora"]["r"], job.base_model) == (2, 4, "tiny-random")
    # What the request leaves out is train_config.yaml's.
    assert job.config["batch_size"] == load_training_config(settings.train_config_file).batch_size
    assert job.created_by == "user-0"
    assert twins.queue.rung == [job.id]


def test_status_shows_progress_and_the_error(caller, twins):
    task_id = caller("POST", "/api/v1/train", json={"dataset_path": "data/raw/sound.json"}).json["task_id"]
    claim = twins.jobs.claim("w", 30)
    twins.jobs.ingest(task_id, claim.fence, [], Progress(3, 10, math.nan, 0.5, 1e-4, 100.0, 7.0))
    fault = Fault("row 2", "no_answer", "the row has no answer")
    twins.jobs.move(
        task_id, claim.fence, JobState.FAILED, JobError("invalid_data", "the data has faults", (fault,))
    )
    answer = caller("GET", f"/api/v1/train/status/{task_id}")
    assert answer.status_code == 200
    body = json.loads(answer.get_data(), parse_constant=pytest.fail)  # NaN is not JSON
    shown = {key: body[key] for key in ("status", "step", "total_steps", "loss", "eta_seconds")}
    assert shown == {"status": "failed", "step": 3, "total_steps": 10, "loss": None, "eta_seconds": 7.0}
    assert body["error"]["code"] == "invalid_data"
    assert body["error"]["errors"] == [{"where": "row 2", "code": "no_answer", "message": "the row has no answer"}]


def test_jobs_are_listed_by_pages_and_by_status(caller, twins):
    made = [
        caller("POST", "/api/v1/train", json={"dataset_path": "data/raw/sound.json"}).json["task_id"]
        for _ in range(3)
    ]
    caller("POST", f"/api/v1/train/{made[0]}/cancel")
    first = caller("GET", "/api/v1/train?limit=2").json
    second = caller("GET", f"/api/v1/train?limit=2&after={first['next']}").json
    assert [job["task_id"] for job in first["data"] + second["data"]] == made[::-1]
    assert second["next"] is None
    cancelled = caller("GET", "/api/v1/train?status=cancelled").json["data"]
    assert [job["task_id"] for job in cancelled] == [made[0]]


def test_cancel_may_be_repeated_but_not_undo_an_end(caller, twins):
    first = caller("POST", "/api/v1/train", json={"dataset_path": "data/raw/sound.json"}).json["task_id"]
    for _ in range(2):
        answer = caller("POST", f"/api/v1/train/{first}/cancel")
        assert (answer.status_code, answer.json["status"]) == (200, "cancelled")
    second = caller("POST", "/api/v1/train", json={"dataset_path": "data/raw/sound.json"}).json["task_id"]
    claim = twins.jobs.claim("w", 30)
    twins.jobs.move(second, claim.fence, JobState.FAILED, JobError("nan_loss", "the loss is not a number"))
    answer = caller("POST", f"/api/v1/train/{second}/cancel")
    assert (answer.status_code, answer.json["code"]) == (409, "job_is_final")


@pytest.fixture
def queued(caller, twins):
    """A job that is validated and waits to be trained."""
    task_id = caller("POST", "/api/v1/train", json={"dataset_path": "data/raw/sound.json"}).json["task_id"]
    twins.jobs.move(task_id, twins.jobs.claim("w", 30).fence, JobState.QUEUED)
    return task_id


def test_a_job_is_paused_and_goes_on(caller, twins, queued):
    for _ in range(2):
        paused = caller("POST", f"/api/v1/train/{queued}/pause")
        assert (paused.status_code, paused.json["status"]) == (200, "paused")
    twins.queue.rung.clear()
    assert caller("POST", f"/api/v1/train/{queued}/resume").json["status"] == "queued"
    assert twins.queue.rung == [queued]
    again = caller("POST", f"/api/v1/train/{queued}/resume")
    assert (again.status_code, again.json["code"]) == (409, "invalid_transition")
    twins.jobs.claim("w", 30)
    assert caller("POST", f"/api/v1/train/{queued}/pause").json["status"] == "pausing"


def test_what_is_being_validated_or_has_ended_is_not_paused(caller, twins):
    task_id = caller("POST", "/api/v1/train", json={"dataset_path": "data/raw/sound.json"}).json["task_id"]
    answer = caller("POST", f"/api/v1/train/{task_id}/pause")
    assert (answer.status_code, answer.json["code"]) == (409, "invalid_transition")
    caller("POST", f"/api/v1/train/{task_id}/cancel")
    assert caller("POST", f"/api/v1/train/{task_id}/pause").status_code == 409


def test_a_job_of_the_foreground_is_its_commands(caller, services):
    job = services.training.submit(Principal.host(), {"dataset_path": "data/raw/sound.json"}, foreground=True)
    answer = caller("POST", f"/api/v1/train/{job.id}/pause")
    assert (answer.status_code, answer.json["code"]) == (409, "foreground_job")


def test_a_retry_is_a_new_job_that_asks_for_the_same(caller, twins):
    body = {
        "dataset_path": "data/raw/sound.json",
        "config": {"learning_rate": 0.003, "lora": {"r": 4}},
        "priority": 3,
    }
    first = caller("POST", "/api/v1/train", json=body).json["task_id"]
    early = caller("POST", f"/api/v1/train/{first}/retry")
    assert (early.status_code, early.json["code"]) == (409, "nothing_to_retry")
    twins.jobs.move(first, twins.jobs.claim("w", 30).fence, JobState.FAILED, JobError("nan_loss", "NaN"))
    answer = caller("POST", f"/api/v1/train/{first}/retry")
    assert (answer.status_code, answer.json["status"]) == (202, "validating_files")
    before, after = (caller("GET", f"/api/v1/train/status/{id}").json for id in (first, answer.json["task_id"]))
    assert after["retry_of"] == first
    assert before["status"] == "failed"
    for key in ("config", "name", "priority", "queue", "dataset_digest"):
        assert after[key] == before[key]


def test_a_retry_of_data_that_is_gone_says_so(caller, settings):
    moved = settings.data_dir / "raw" / "moved.json"
    moved.write_text((settings.data_dir / "raw" / "sound.json").read_text())
    task_id = caller("POST", "/api/v1/train", json={"dataset_path": "data/raw/moved.json"}).json["task_id"]
    caller("POST", f"/api/v1/train/{task_id}/cancel")
    moved.unlink()
    answer = caller("POST", f"/api/v1/train/{task_id}/retry")
    assert (answer.status_code, answer.json["errors"][0]["where"]) == (422, "dataset_path")
    assert len(caller("GET", "/api/v1/train").json["data"]) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("priority", 11), ("priority", -11), ("priority", 1.5), ("priority", "high"), ("queue", "nowhere")],
)
def test_a_priority_or_queue_that_is_none_starts_nothing(caller, twins, field, value):
    answer = caller("POST", "/api/v1/train", json={"dataset_path": "data/raw/sound.json", field: value})
    assert answer.status_code == 422
    assert [fault["where"] for fault in answer.json["errors"]] == [field]
    assert twins.job_count() == 0


def test_as_many_jobs_wait_as_may(caller, twins):
    twins.jobs.set_limits("default", ProjectLimits(queued=1))
    assert caller("GET", "/api/v1/projects/default/limits").json["limits"]["queued"] == 1
    assert caller("POST", "/api/v1/train", json={"dataset_path": "data/raw/sound.json"}).status_code == 202
    answer = caller("POST", "/api/v1/train", json={"dataset_path": "data/raw/sound.json"})
    assert (answer.status_code, answer.json["code"]) == (429, "too_many_jobs")
    assert int(answer.headers["Retry-After"]) > 0
    assert twins.job_count() == 1


def test_events_come_in_order_from_where_the_caller_stopped(caller, twins):
    task_id = caller("POST", "/api/v1/train", json={"dataset_path": "data/raw/sound.json"}).json["task_id"]
    claim = twins.jobs.claim("w", 30)
    events = [JobEvent(n, "message", "info", f"event {n}", datetime.now(UTC)) for n in (1, 2, 3)]
    twins.jobs.ingest(task_id, claim.fence, events, None)
    answer = caller("GET", f"/api/v1/train/{task_id}/events?after=1&limit=1")
    assert [event["message"] for event in answer.json["data"]] == ["event 2"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *[("GET", "status/{}"), ("GET", "{}/events"), ("GET", "{}/metrics")],
        *[("POST", f"{{}}/{verb}") for verb in ("cancel", "pause", "resume", "retry")],
    ],
)
@pytest.mark.parametrize("task_id", [NOBODY, "ftjob-x", "1 or 1=1", "%00"])
def test_a_job_that_is_not_there(caller, method, path, task_id):
    answer = caller(method, f"/api/v1/train/{path.format(task_id)}")
    assert (answer.status_code, answer.json["code"]) == (404, "job_not_found")


def test_another_projects_job_is_not_found(client, bearer, caller):
    task_id = caller("POST", "/api/v1/train", json={"dataset_path": "data/raw/sound.json"}).json["task_id"]
    stranger = bearer(Role.ADMIN, "other")
    assert client.get(f"/api/v1/train/status/{task_id}", headers=stranger).status_code == 404
    for what in ("events", "metrics"):
        assert client.get(f"/api/v1/train/{task_id}/{what}", headers=stranger).status_code == 404
    for verb in ("cancel", "pause", "resume", "retry"):
        assert client.post(f"/api/v1/train/{task_id}/{verb}", headers=stranger).status_code == 404
    assert client.get("/api/v1/train", headers=stranger).json["data"] == []


def test_predict_passes_on_what_was_asked(caller, twins):
    answer = caller(
        "POST", "/api/v1/predict", json={"text": "abc", "max_length": 5, "temperature": 1, "model": "m:2"}
    )
    assert answer.status_code == 200
    assert answer.json == {
        "text": "cba",
        "reasoning": None,
        "model": "m:2",
        "finish_reason": "stop",
        "prompt_tokens": 3,
        "completion_tokens": 3,
    }
    caller("POST", "/api/v1/predict", json={"text": "abc"})
    caller("POST", "/api/v1/predict", json={"text": "abc", "top_k": 3, "stop": ["x"], "json_schema": {}})
    odd = AnswerOptions(max_tokens=128, top_k=3, stop=["x"], json_schema={})
    assert twins.inference.asked == [
        ("default", ["abc"], AnswerOptions(max_tokens=5, temperature=1.0, stop=[]), "m:2"),
        ("default", ["abc"], AnswerOptions(max_tokens=128, stop=[]), None),
        ("default", ["abc"], odd, None),
    ]


def test_predict_answers_several_texts_in_order(caller, twins):
    answer = caller("POST", "/api/v1/predict", json={"texts": ["abc", "de"]})
    assert answer.status_code == 200
    assert list(answer.json) == ["predictions"]
    assert [one["text"] for one in answer.json["predictions"]] == ["cba", "ed"]
    assert answer.json["predictions"][1]["completion_tokens"] == 2
    assert len(twins.inference.asked) == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("no model", code="model_not_found"), 404),
        (Unavailable("not resident", code="base_not_resident", retry_after=7), 503),
    ],
)
def test_what_inference_refuses_is_passed_on(caller, twins, error, status):
    twins.inference.error = error
    answer = caller("POST", "/api/v1/predict", json={"text": "abc"})
    assert (answer.status_code, answer.json["code"]) == (status, error.code)
    assert answer.headers.get("Retry-After") == (str(error.retry_after) if error.retry_after else None)


def test_models_and_their_versions(caller, twins):
    version = ModelVersion(
        id="v1",
        project_id=DEFAULT_PROJECT_ID,
        name="support",
        number=1,
        base_model="tiny-random",
        template_hash="0" * 64,
        artifacts="v1",
        job_id=None,
        dataset_digest="0" * 64,
        config={"num_epochs": 1},
        metrics={"eval_loss": 0.5},
        created_by=None,
        created_at=datetime.now(UTC),
    )
    for version_id in ("v1", "v2"):
        twins.versions.publish(replace(version, id=version_id))
    assert [model["latest"] for model in caller("GET", "/api/v1/models").json["data"]] == [2]
    assert caller("GET", "/api/v1/models/support").json["versions"] == 2
    versions = caller("GET", "/api/v1/models/support/versions").json["data"]
    assert [one["reference"] for one in versions] == ["support:2", "support:1"]
    assert "artifacts" not in versions[0]  # a place on the host
    for path in ("/api/v1/models/absent", "/api/v1/models/absent/versions"):
        assert caller("GET", path).json["code"] == "model_not_found"


def test_probes_say_what_is_wrong(client, twins):
    assert client.get("/api/v1/monitor/health").json == {"status": "ok"}
    assert client.get("/api/v1/monitor/ready").json == {
        "ready": True,
        "reasons": [],
        "engines": ["smollm2-135m-instruct"],
    }
    twins.database.problem, twins.queue.problem = "no schema", "no broker"
    answer = client.get("/api/v1/monitor/ready")
    assert (answer.status_code, answer.json["reasons"]) == (503, ["no schema", "no broker"])
    assert client.get("/api/v1/monitor/health").status_code == 200
