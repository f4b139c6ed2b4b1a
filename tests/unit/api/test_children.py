"""The web process starts no child that loads torch, whatever it is asked: workers do."""

import json
import subprocess

import pytest

ROWS = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n'
EXAMPLE_ID = "ds-0123456789abcdef01234567"  # of a dataset, in the document
METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture
def started(monkeypatch):
    """The command of each child process that was started."""
    commands = []

    class Counted(subprocess.Popen):
        def __init__(self, args, *others, **options):
            commands.append(list(map(str, args)))
            super().__init__(args, *others, **options)

    monkeypatch.setattr(subprocess, "Popen", Counted)
    return commands


def operations(client):
    document = client.get("/openapi.json").json
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                yield (
                    method.upper(),
                    path,
                    item[method],
                    item.get("parameters", []) + item[method].get("parameters", []),
                )


def test_no_route_starts_a_child_that_loads_torch(client, caller, started, services):
    dataset = caller(
        "POST", "/api/v1/datasets?name=d", data={"file": (__import__("io").BytesIO(ROWS.encode()), "r.jsonl")}
    )
    dataset_id = dataset.json["dataset_id"]
    asked = 0
    for method, path, operation, parameters in operations(client):
        for parameter in parameters:
            if parameter.get("in") == "path":
                known = dataset_id if parameter["name"] == "dataset_id" else str(parameter.get("example", "x"))
                path = path.replace("{" + parameter["name"] + "}", known)
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        body = json.loads(
            json.dumps(content.get("example", {})).replace("ds-0123456789abcdef01234567", dataset_id)
        )
        arguments = {"json": body} if content else {}
        answer = caller(method, path, headers={"Prefer": "wait=0"}, **arguments)
        answer.close()
        assert answer.status_code != 500, (method, path, answer.get_data(as_text=True))
        asked += 1
    assert asked > 80
    assert [command for command in started if "app.processes" in " ".join(command)] == []


def test_an_estimate_and_a_large_inspection_are_jobs(caller, started):
    body = {"dataset_path": "data/raw/sound.json", "base_model": "tiny-random"}
    answer = caller("POST", "/api/v1/train/estimate", json=body, headers={"Prefer": "wait=0"})
    assert answer.status_code == 202
    assert answer.json["kind"] == "estimate"
    assert answer.headers["Location"] == f"/api/v1/jobs/{answer.json['id']}"
    shown = caller("GET", answer.headers["Location"]).json
    assert (shown["status"], shown["result"]) == ("validating_files", {})
    assert started == []
