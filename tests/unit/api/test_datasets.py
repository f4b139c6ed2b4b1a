"""Datasets over HTTP: what is uploaded, its versions, and that no project reaches another's."""

import io
import json
from dataclasses import replace

import pyarrow as pa
import pytest
from pyarrow import parquet

from app.core.entities.identity import Role
from app.core.entities.jobs import JobError, JobState
from app.core.services.jobs.job_records import JobRecords

ROWS = [
    {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": f"{n}!"}]}
    for n in range(5)
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.fixture
def upload(client, bearer):
    headers = bearer(Role.DEVELOPER)

    def send(content=LINES, file="rows.jsonl", to=None, headers=headers, **query):
        path = "/api/v1/datasets" if to is None else f"/api/v1/datasets/{to}/versions"
        query = query if to or "name" in query else {"name": "support", **query}
        return client.post(path, query_string=query, data={"file": (io.BytesIO(content), file)}, headers=headers)

    return send


def test_an_upload_is_a_dataset_with_its_first_version(upload, caller):
    answer = upload()
    assert answer.status_code == 201
    version = answer.json
    assert (version["number"], version["rows"], version["format"], version["source"]) == (
        1,
        5,
        "messages",
        "rows.jsonl",
    )
    assert version["reference"] == f"{version['dataset_id']}:1"
    found = caller("GET", f"/api/v1/datasets/{version['dataset_id']}").json
    assert (found["name"], found["newest"], found["tags"]) == ("support", version, {})
    assert [one["id"] for one in caller("GET", "/api/v1/datasets").json["data"]] == [version["dataset_id"]]


def test_the_same_rows_have_one_digest_in_every_kind_of_file(upload):
    table = pa.Table.from_pylist(ROWS)
    written = io.BytesIO()
    parquet.write_table(table, written)
    digests = {
        upload(content, file, name=f"n{place}").json["digest"]
        for place, (file, content) in enumerate(
            {
                "a.jsonl": LINES,
                "a.json": json.dumps(ROWS).encode(),
                "a.PARQUET": written.getvalue(),
            }.items()
        )
    }
    assert len(digests) == 1


def test_faults_are_all_named_and_nothing_is_kept(upload, caller, settings):
    bad = LINES + b'{"messages": []}\n{"prompt": 5}\nnonsense\n'
    answer = upload(bad)
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_data")
    assert [error["where"].split(":")[0] for error in answer.json["errors"]][:1] == ["row 6"]
    assert len(answer.json["errors"]) >= 3
    assert caller("GET", "/api/v1/datasets").json["data"] == []
    assert [path for path in (settings.data_dir / "versions").iterdir() if not path.name.endswith(".lock")] == []


@pytest.mark.parametrize("file", ["rows.txt", "rows", "../../etc/passwd", "rows.jsonl.exe"])
def test_other_kinds_of_files_are_refused_by_name(upload, file):
    answer = upload(file=file)
    assert (answer.status_code, answer.json["code"]) == (422, "file_type_not_supported")


@pytest.mark.parametrize("name", ["", "-x", "a/b", "..", "x" * 65, "ü"])
def test_odd_names_are_refused(upload, caller, name):
    assert upload(name=name).status_code == 422
    assert caller("GET", "/api/v1/datasets").json["data"] == []


def test_columns_are_renamed(upload):
    rows = json.dumps([{"frage": "a?", "antwort": "a!"}]).encode()
    assert upload(rows, "rows.json").json["code"] == "invalid_data"
    mapped = json.dumps({"frage": "prompt", "antwort": "completion"})
    assert upload(rows, "rows.json", columns=mapped).json["format"] == "prompt_completion"
    for nonsense in ("[]", "{", '{"a": 1}', "[" * 5000):
        assert upload(rows, "rows.json", columns=nonsense, name="other").status_code == 422


def test_a_name_is_taken_once_and_the_next_version_goes_by_id(upload, caller):
    first = upload().json
    again = upload()
    assert (again.status_code, again.json["code"]) == (409, "dataset_name_taken")
    second = upload(LINES.replace(b"4!", b"four"), to=first["dataset_id"]).json
    assert (second["number"], second["digest"] == first["digest"]) == (2, False)
    listed = caller("GET", f"/api/v1/datasets/{first['dataset_id']}/versions").json["data"]
    assert listed == [second, first]
    diff = caller("GET", f"/api/v1/datasets/{first['dataset_id']}/diff?before=1&after=2").json
    assert (diff["unchanged"], diff["counts"]) == (4, {"added": 0, "removed": 0, "changed": 1})
    (change,) = diff["changes"]
    assert change["before"]["messages"][1]["content"] == "4!"
    assert change["after"]["messages"][1]["content"] == "four"


def test_tags_move_and_go_and_an_old_version_comes_back(upload, caller):
    first = upload().json
    path = f"/api/v1/datasets/{first['dataset_id']}"
    upload(LINES + LINES[: LINES.index(b"\n") + 1], to=first["dataset_id"])
    assert caller("PUT", f"{path}/tags/good", json={"version": 2}).json["tags"] == {"good": 2}
    assert caller("PUT", f"{path}/tags/good", json={"version": 1}).json["tags"] == {"good": 1}
    assert caller("PUT", f"{path}/tags/good", json={"version": 9}).status_code == 404
    restored = caller("POST", f"{path}/restore", json={"version": 1}).json
    assert (restored["number"], restored["digest"], restored["parent"]) == (3, first["digest"], 1)
    assert caller("DELETE", f"{path}/tags/good").json["tags"] == {}
    assert caller("DELETE", f"{path}/tags/good").status_code == 404


def test_a_job_trains_on_a_version_by_its_number(upload, caller, twins):
    first = upload().json
    dataset = first["dataset_id"]
    answer = caller("POST", "/api/v1/train", json={"dataset_id": dataset})
    assert answer.status_code == 202
    (job,) = twins.jobs.list("default")
    assert (job.dataset_id, job.dataset_number, job.dataset_digest) == (dataset, 1, first["digest"])
    assert job.config["dataset_id"] == f"{dataset}:1"
    shown = caller("GET", f"/api/v1/train/status/{job.id}").json
    assert (shown["dataset_id"], shown["dataset_digest"]) == (f"{dataset}:1", first["digest"])
    refused = caller("DELETE", f"/api/v1/datasets/{dataset}")
    assert (refused.status_code, refused.json["code"]) == (409, "dataset_in_use")


@pytest.mark.parametrize(
    ("body", "where", "code"),
    [
        ({}, "dataset_id", "invalid"),
        ({"dataset_id": "ds-1", "dataset_path": "data/raw/sound.json"}, "dataset_id", "invalid"),
        ({"dataset_id": "../x"}, "dataset_id", "bad_reference"),
        ({"dataset_id": f"ds-{'0' * 24}"}, "dataset_id", "dataset_not_found"),
        ({"dataset_id": f"ds-{'0' * 24}:0"}, "dataset_id", "bad_reference"),
    ],
)
def test_a_job_without_data_that_can_be_found_is_refused(caller, twins, body, where, code):
    answer = caller("POST", "/api/v1/train", json=body)
    assert answer.status_code == 422
    assert (where, code) in {(error["where"], error["code"]) for error in answer.json["errors"]}
    assert twins.job_count() == 0


def test_deleted_rows_are_gone_unless_another_dataset_has_them(upload, caller, settings):
    first, second = upload(name="one").json, upload(name="two").json
    rows = settings.data_dir / "versions" / first["digest"]
    assert first["digest"] == second["digest"]
    assert caller("DELETE", f"/api/v1/datasets/{first['dataset_id']}").status_code == 204
    assert rows.is_dir()
    assert caller("DELETE", f"/api/v1/datasets/{second['dataset_id']}").status_code == 204
    assert not rows.exists()
    assert caller("DELETE", f"/api/v1/datasets/{second['dataset_id']}").status_code == 404


def test_an_upload_that_is_too_large_is_refused(upload, app, monkeypatch, caller):
    monkeypatch.setitem(app.config, "MAX_UPLOAD_BYTES", 1000)
    answer = upload(LINES * 20)
    assert (answer.status_code, answer.json["code"]) == (413, "body_too_large")
    assert caller("GET", "/api/v1/datasets").json["data"] == []


def test_no_route_reaches_into_another_project(upload, client, bearer):
    version = upload().json
    foreign = bearer(Role.ADMIN, "other")
    path = f"/api/v1/datasets/{version['dataset_id']}"
    calls = [
        ("GET", path, {}),
        ("GET", f"{path}/versions", {}),
        ("GET", f"{path}/stats", {}),
        ("POST", f"{path}/validate", {}),
        ("GET", f"{path}/preview?base_model=tiny-random&row=1", {}),
        ("GET", f"{path}/diff?before=1&after=1", {}),
        ("POST", f"{path}/restore", {"json": {"version": 1}}),
        ("PUT", f"{path}/tags/mine", {"json": {"version": 1}}),
        ("DELETE", f"{path}/tags/mine", {}),
        ("DELETE", path, {}),
    ]
    for method, place, arguments in calls:
        answer = client.open(place, method=method, headers=foreign, **arguments)
        assert answer.status_code == 404, (method, place)
    assert upload(to=version["dataset_id"], headers=foreign).status_code == 404
    body = {"dataset_id": version["dataset_id"]}
    assert client.post("/api/v1/train", json=body, headers=foreign).status_code == 422
    assert client.get("/api/v1/datasets", headers=foreign).json["data"] == []


def test_stats_and_validation(upload, caller):
    private = {"role": "assistant", "content": "Mail a.b@firm.com"}
    secret = json.dumps({"messages": [{"role": "user", "content": "1?"}, private]}).encode()
    dataset = upload(LINES + LINES[: LINES.index(b"\n") + 1] + secret).json["dataset_id"]
    stats = caller("GET", f"/api/v1/datasets/{dataset}/stats").json
    assert (stats["total_samples"], stats["unit"], stats["label_counts"], stats["rates"]) == (
        7,
        "characters",
        {},
        {},
    )
    found = caller("POST", f"/api/v1/datasets/{dataset}/validate").json
    codes = {warning["code"] for warning in found["warnings"]}
    assert {"duplicate", "personal_data"} <= codes
    assert "a.b@firm.com" not in json.dumps(found)
    assert found["report"]["rates"].keys() == {"near_duplicates", "languages", "secrets", "personal_data"}


@pytest.mark.parametrize("query", ["", "version=0", "version=x", "max_length=1", "row=1", "nonsense=1"])
def test_odd_queries_are_named(upload, caller, query):
    dataset = upload().json["dataset_id"]
    assert caller("GET", f"/api/v1/datasets/{dataset}/preview?{query}").status_code == 422


def test_a_preview_names_a_base_model_that_is_no_name(upload, caller):
    dataset = upload().json["dataset_id"]
    answer = caller("GET", f"/api/v1/datasets/{dataset}/preview?base_model=No+such&row=1")
    assert (answer.status_code, answer.json["errors"][0]["where"]) == (422, "config.base_model")


def test_a_large_dataset_is_looked_at_quickly(upload, caller, monkeypatch):
    monkeypatch.setattr("app.api.datasets.routes.MOST_ROWS", 4)
    dataset = upload().json["dataset_id"]
    found = caller("GET", f"/api/v1/datasets/{dataset}/stats?base_model=tiny-random").json
    assert (found["unit"], found["rates"]) == ("characters", {})


@pytest.mark.usefixtures("light_worker")
def test_a_large_dataset_is_looked_through_by_a_worker(upload, caller, monkeypatch):
    """With the answer that a small one gets at once."""
    dataset = upload(LINES + LINES[: len(LINES) // 5]).json["dataset_id"]
    path = f"/api/v1/datasets/{dataset}/validate"
    at_once = caller("POST", path).json
    monkeypatch.setattr("app.api.datasets.routes.MOST_ROWS", 4)
    answer = caller("POST", path, headers={"Prefer": "wait=30"})
    assert answer.status_code == 200
    waited_for = answer.json
    assert waited_for["report"].pop("rates").keys() == at_once["report"].pop("rates").keys()
    assert waited_for == at_once
    (job,) = caller("GET", "/api/v1/jobs?kind=inspect").json["data"]
    assert (job["status"], job["dataset_id"]) == ("succeeded", dataset)


def test_who_does_not_wait_for_it_finds_it_at_its_job(upload, caller, monkeypatch, services):
    monkeypatch.setattr("app.api.datasets.routes.MOST_ROWS", 4)
    dataset = upload().json["dataset_id"]
    answer = caller("POST", f"/api/v1/datasets/{dataset}/validate", headers={"Prefer": "wait=0"})
    assert (answer.status_code, answer.json["kind"]) == (202, "inspect")
    assert services.execution.run_next("me", is_light=True)
    shown = caller("GET", answer.headers["Location"]).json
    assert shown["status"] == "succeeded"
    assert shown["result"]["report"]["total_samples"] == 5


def test_an_inspection_that_fails_says_so(upload, caller, monkeypatch):
    dataset = upload().json["dataset_id"]
    monkeypatch.setattr("app.api.datasets.routes.MOST_ROWS", 4)
    wait, error = JobRecords.wait, JobError("poisoned", "its process was lost three times")

    def failed(self, principal, job_id, seconds):
        return replace(wait(self, principal, job_id, 0), state=JobState.FAILED, error=error)

    monkeypatch.setattr(JobRecords, "wait", failed)
    answer = caller("POST", f"/api/v1/datasets/{dataset}/validate")
    assert (answer.status_code, answer.json["code"]) == (503, "inspect_failed")
    assert "lost three times" in answer.json["detail"]


# --- the pipeline, as a job ---


@pytest.fixture
def process(caller):
    def submit(dataset, **body):
        return caller("POST", f"/api/v1/datasets/{dataset}/process", json=body)

    return submit


def test_a_job_makes_the_next_version(upload, caller, process, services):
    dataset = upload(LINES + LINES[: len(LINES) // 5]).json["dataset_id"]
    answer = process(dataset, config={"steps": ["clean"]})
    assert (answer.status_code, answer.json["kind"], answer.json["status"]) == (202, "process", "queued")
    assert services.execution.run_next("me") is False  # it is a light slot's
    assert services.execution.run_next("me", is_light=True)
    job = caller("GET", f"/api/v1/jobs/{answer.json['id']}").json
    assert (job["status"], job["error"], job["made"]) == ("succeeded", None, [f"{dataset}:2"])
    assert job["result"]["rows"] == 5
    newest = caller("GET", f"/api/v1/datasets/{dataset}").json["newest"]
    assert (newest["number"], newest["rows"]) == (2, 5)


def test_every_fault_of_a_pipeline_is_named(upload, process):
    dataset = upload().json["dataset_id"]
    answer = process(dataset, config={"steps": ["dance"], "seed": -1, "cleaning": {"html": 3}})
    assert answer.status_code == 422
    places = {fault["where"] for fault in answer.json["errors"]}
    assert places == {"config.steps.0", "config.seed", "config.cleaning.html"}
    assert process("ds-" + "0" * 24).status_code == 404


def test_a_dataset_is_not_deleted_under_a_job_that_processes_it(upload, caller, process, services):
    dataset = upload().json["dataset_id"]
    place = f"/api/v1/jobs/{process(dataset).json['id']}"
    refused = caller("DELETE", f"/api/v1/datasets/{dataset}")
    assert (refused.status_code, refused.json["code"]) == (409, "dataset_in_use")
    assert services.execution.run_next("me", is_light=True)
    assert caller("GET", place).json["status"] == "succeeded"
    assert caller("DELETE", f"/api/v1/datasets/{dataset}").status_code == 204
    assert caller("GET", f"/api/v1/datasets/{dataset}").status_code == 404
    shown = caller("GET", place).json  # which still says what it made
    assert (shown["dataset_id"], shown["made"]) == (dataset, [f"{dataset}:2"])


def test_a_dataset_is_deleted_once_its_job_was_cancelled(upload, caller, process):
    dataset = upload().json["dataset_id"]
    job = process(dataset).json["id"]
    assert caller("POST", f"/api/v1/jobs/{job}/cancel").json["status"] == "cancelled"
    assert caller("DELETE", f"/api/v1/datasets/{dataset}").status_code == 204


@pytest.fixture
def small_body(services, monkeypatch):
    """As if max_body_bytes were smaller than the rows of ``LINES``."""
    monkeypatch.setattr(services.dataset_versions, "_most_bytes", 100)


def test_what_a_request_cannot_look_through_names_what_can(upload, caller, small_body):
    first = upload().json
    path = f"/api/v1/datasets/{first['dataset_id']}"
    upload(LINES * 2, to=first["dataset_id"])
    for place, instead in (
        ("stats", "POST /api/v1/datasets/{id}/validate"),
        ("diff?before=1&after=2", "flask data diff"),
    ):
        refused = caller("GET", f"{path}/{place}")
        assert (refused.status_code, refused.json["code"]) == (422, "dataset_too_large"), place
        assert instead in refused.json["detail"]
        assert "100 bytes" in refused.json["detail"]
    assert caller("GET", f"{path}/preview?base_model=tiny-random&row=1").json["code"] != "dataset_too_large"
    assert caller("POST", f"{path}/validate", headers={"Prefer": "wait=0"}).json["kind"] == "inspect"


def test_the_operator_looks_through_what_a_request_cannot(upload, app, small_body):
    first = upload().json["dataset_id"]
    upload(LINES * 2, to=first)
    for command in (["analyze", first], ["validate", first], ["diff", f"{first}:1", f"{first}:2"]):
        result = app.test_cli_runner().invoke(args=["data", *command])
        assert result.exit_code == 0, result.output
