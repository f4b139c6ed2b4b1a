"""Idempotency-Key on every route that creates: one answer for one key and body, whatever happens between."""

import io
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.core.entities.identity import Role
from app.core.errors import Unavailable
from app.core.services.people.idempotency import IdempotencyService
from tests.running_service import BASE, make_base
from tests.unit.conftest import SOUND_ROWS

# Every other POST makes something: whoever adds one decides.
MAKE_NOTHING = {
    *("auth.token", "auth.refresh", "auth.logout", "datasets.validate", "train.estimate"),
    *("train.cancel", "train.pause", "train.resume", "infer.predict", "infer.chat"),
    *("jobs.cancel", "jobs.pause", "jobs.resume"),
    *("openai_jobs.cancel_job", "openai_jobs.pause_job", "openai_jobs.resume_job"),
    *("openai_answers.chat", "openai_answers.complete", "users.disable", "users.enable"),
}
TRAIN = {"dataset_path": "data/raw/sound.json"}


def upload(text=SOUND_ROWS):
    return {"data": {"file": (io.BytesIO(text.encode()), "rows.json")}}


def for_tuning(text):
    return {"data": {"purpose": "fine-tune", **upload(text)["data"]}}


def chain(name):
    return {"json": {"jobs": [{"name": name, "kind": "train", "request": TRAIN}]}}


@pytest.fixture
def dataset(caller):
    return caller("POST", "/api/v1/datasets?name=first", **upload()).json["dataset_id"]


@pytest.fixture
def failed_job(caller, twins):
    job_id = caller("POST", "/api/v1/train", json=TRAIN).json["task_id"]
    caller("POST", f"/api/v1/train/{job_id}/cancel")
    return job_id


@pytest.fixture
def webhook(caller):
    hook = {"url": "https://hooks.example.com/1"}
    return caller("POST", "/api/v1/webhooks", json=hook).json["id"]


@pytest.fixture
def requests(services, settings, dataset, failed_job, webhook):
    """By endpoint: a path, and two bodies that are sound."""
    make_base(settings.models_dir / "base" / BASE)
    for name in ("alice", "bob"):
        services.accounts.create_user(name, "a good password", Role.VIEWER)
    user = {"password": "a good password", "role": "viewer"}
    other = SOUND_ROWS.replace("Hello", "Goodbye")
    return {
        "train.submit": ("/api/v1/train", {"json": TRAIN}, {"json": {**TRAIN, "priority": 2}}),
        "train.retry": (f"/api/v1/train/{failed_job}/retry", {}, {"json": {}}),
        "jobs.retry": (f"/api/v1/jobs/{failed_job}/retry", {}, {"json": {}}),
        "jobs.submit_chain": ("/api/v1/jobs", chain("one"), chain("other")),
        "evaluations.submit": (
            "/api/v1/evaluations",
            {"json": {"model": BASE, "dataset_id": dataset}},
            {"json": {"model": BASE, "dataset_id": dataset, "split": "train"}},
        ),
        "datasets.process": (
            f"/api/v1/datasets/{dataset}/process",
            {"json": {"config": {"seed": 1}}},
            {"json": {"config": {"seed": 2}}},
        ),
        "datasets.upload": ("/api/v1/datasets?name=second", upload(), upload(other)),
        "datasets.upload_version": (f"/api/v1/datasets/{dataset}/versions", upload(), upload(other)),
        "datasets.restore": (
            f"/api/v1/datasets/{dataset}/restore",
            {"json": {"version": 1}},
            {"json": {"version": 2}},
        ),
        "keys.create_key": ("/api/v1/keys", {"json": {"name": "a"}}, {"json": {"name": "b"}}),
        "projects.create_project": (
            "/api/v1/projects",
            {"json": {"id": "p1", "admin": "alice"}},
            {"json": {"id": "p1", "admin": "bob"}},
        ),
        "members.create_service_account": (
            "/api/v1/service-accounts",
            {"json": {"name": "ci", "role": "viewer"}},
            {"json": {"name": "cd", "role": "viewer"}},
        ),
        "users.create_user": (
            "/api/v1/users",
            {"json": {"username": "u1", **user}},
            {"json": {"username": "u2", **user}},
        ),
        "openai_files.upload_file": ("/v1/files", for_tuning(SOUND_ROWS), for_tuning(other)),
        "openai_jobs.create_job": (
            "/v1/fine_tuning/jobs",
            {"json": {"model": "tiny-random", "training_file": dataset}},
            {"json": {"model": "tiny-random", "training_file": dataset, "seed": 4}},
        ),
        "webhooks.create_webhook": (
            "/api/v1/webhooks",
            {"json": {"url": "https://hooks.example.com/2"}},
            {"json": {"url": "https://hooks.example.com/3"}},
        ),
        "webhooks.rotate_secret": (f"/api/v1/webhooks/{webhook}/rotate-secret", {}, {"json": {}}),
        "webhooks.ping": (f"/api/v1/webhooks/{webhook}/ping", {}, {"json": {}}),
    }


def creating(app):
    posts = {rule.endpoint for rule in app.url_map.iter_rules() if "POST" in rule.methods}
    assert posts >= MAKE_NOTHING
    return posts - MAKE_NOTHING


def code_of(answer):
    return answer.json.get("error", answer.json)["code"]


def fresh(body):
    """A test client closes the files that it has sent."""
    if "data" not in body:
        return body
    file, name = body["data"]["file"]
    return {"data": {**body["data"], "file": (io.BytesIO(file.getvalue()), name)}}


def test_every_route_that_creates_takes_a_key_and_obeys_it(app, caller, requests):
    assert creating(app) == requests.keys()
    for endpoint, (path, body, other) in requests.items():
        headers = {"Idempotency-Key": f"key-of-{endpoint}"}
        bodies = [fresh(body), fresh(body), fresh(other)]
        first, again, reused = [caller("POST", path, headers=headers, **one) for one in bodies]
        assert first.status_code < 300, (endpoint, first.json)
        assert "Idempotency-Replayed" not in first.headers
        status = 400 if path.startswith("/v1/") else 422
        assert (reused.status_code, code_of(reused)) == (status, "idempotency_key_reused"), endpoint
        if endpoint in ("keys.create_key", "webhooks.create_webhook", "webhooks.rotate_secret"):
            assert (again.status_code, again.json["code"]) == (409, "idempotency_secret_shown")
            continue
        assert (again.status_code, again.json) == (first.status_code, first.json), endpoint
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.content_type == first.content_type


def test_the_document_says_where(app, client):
    said = set()
    rules = {}
    for rule in app.url_map.iter_rules():
        if "POST" in rule.methods:
            rules[rule.rule.replace("<", "{").replace(">", "}")] = rule.endpoint
    for path, item in client.get("/openapi.json").json["paths"].items():
        for parameter in item.get("post", {}).get("parameters", []):
            if parameter.get("name") == "Idempotency-Key":
                said.add(rules[path])
                assert "409" in item["post"]["responses"]
    assert said == creating(app)


def test_what_was_done_once_is_done_once(caller, twins):
    headers = {"Idempotency-Key": "k"}
    ids = {caller("POST", "/api/v1/train", json=TRAIN, headers=headers).json["task_id"] for _ in range(3)}
    assert (len(ids), twins.job_count()) == (1, 1)
    assert [entry.action for entry in twins.audit.kept] == ["train.submit"]


def test_each_caller_has_keys_of_their_own(client, bearer, twins):
    for headers in (bearer(), bearer(), bearer(project="other")):
        answer = client.post("/api/v1/train", json=TRAIN, headers={**headers, "Idempotency-Key": "k"})
        assert answer.status_code == 202
        assert "Idempotency-Replayed" not in answer.headers
    assert twins.job_count() == 3


def test_nothing_that_is_kept_is_secret(caller, twins):
    made = caller("POST", "/api/v1/keys", json={"name": "a"}, headers={"Idempotency-Key": "k"}).json["key"]
    user = {"username": "u1", "password": "a good password", "role": "viewer"}
    caller("POST", "/api/v1/users", json=user, headers={"Idempotency-Key": "k"})
    assert len(twins.kept_requests.kept) == 2
    assert made not in repr(twins.kept_requests.kept)
    assert "a good password" not in repr(twins.kept_requests.kept)


def test_a_fault_of_the_body_is_kept(caller, twins):
    headers = {"Idempotency-Key": "k"}
    answers = [
        caller("POST", "/api/v1/train", data="{", headers=headers, content_type="application/json")
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert answers[0].json == answers[1].json
    assert answers[1].headers["Idempotency-Replayed"] == "true"


def test_what_is_not_about_the_body_is_not_kept(caller, client, bearer, services, monkeypatch, twins):
    headers = {"Idempotency-Key": "k"}
    assert client.post("/api/v1/train", json=TRAIN, headers=headers).status_code == 401
    assert client.post("/api/v1/train", json=TRAIN, headers={**bearer(Role.VIEWER), **headers}).status_code == 403
    with monkeypatch.context() as patch:
        for failure, status in ((Unavailable("away"), 503), (RuntimeError("a bug"), 500)):

            def fail(*_args, failure=failure, **_options):
                raise failure

            patch.setattr(services.training, "submit", fail)
            assert caller("POST", "/api/v1/train", json=TRAIN, headers=headers).status_code == status
    assert twins.kept_requests.kept == []
    assert caller("POST", "/api/v1/train", json=TRAIN, headers=headers).status_code == 202


def test_of_two_at_once_one_is_done(caller, services, monkeypatch, twins):
    entered, go_on = threading.Event(), threading.Event()
    submit = services.training.submit

    def slow(*arguments, **options):
        entered.set()
        assert go_on.wait(30)
        return submit(*arguments, **options)

    monkeypatch.setattr(services.training, "submit", slow)
    answers = []
    headers = {"Idempotency-Key": "k"}

    def ask():
        answers.append(caller("POST", "/api/v1/train", json=TRAIN, headers=headers))

    first = threading.Thread(target=ask)
    first.start()
    assert entered.wait(30)
    ask()
    go_on.set()
    first.join()
    early, done = answers
    assert (early.status_code, early.json["code"]) == (409, "idempotency_in_progress")
    assert int(early.headers["Retry-After"]) >= 1
    assert done.status_code == 202
    ask()
    assert answers[2].json == done.json
    assert twins.job_count() == 1


def test_a_process_that_was_killed_holds_its_request_for_five_minutes(app, caller, services, monkeypatch, twins):
    now = datetime(2026, 3, 3, tzinfo=UTC)
    clock = lambda: now  # noqa: E731
    timed = IdempotencyService(twins.kept_requests, 3600, lambda: clock())
    monkeypatch.setitem(app.extensions, "services", replace(services, idempotency=timed))

    def ask():
        return caller("POST", "/api/v1/train", json=TRAIN, headers={"Idempotency-Key": "k"})

    with monkeypatch.context() as patch:
        patch.setattr(timed, "release", lambda request: None)
        patch.setattr(services.training, "submit", lambda *_a, **_o: 1 / 0)
        assert ask().status_code == 500
    assert ask().json["code"] == "idempotency_in_progress"
    now += timedelta(seconds=299)
    assert ask().json["code"] == "idempotency_in_progress"
    now += timedelta(seconds=2)
    done = ask()
    assert done.status_code == 202
    now += timedelta(seconds=3599)
    assert ask().json == done.json
    now += timedelta(seconds=2)
    assert ask().json != done.json


@pytest.mark.parametrize("key", ["", "a b", "k" * 256, "é"])
def test_a_key_that_is_none(caller, twins, key):
    answer = caller("POST", "/api/v1/train", json=TRAIN, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_idempotency_key")
    assert twins.job_count() == 0


def test_elsewhere_a_key_does_nothing(caller, twins):
    body = {"text": "Hi", "model": "smollm2-135m-instruct"}
    for _ in range(2):
        answer = caller("POST", "/api/v1/predict", json=body, headers={"Idempotency-Key": "k"})
        assert answer.status_code == 200
        assert "Idempotency-Replayed" not in answer.headers
    assert twins.kept_requests.kept == []
