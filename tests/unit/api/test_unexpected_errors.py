"""Whatever a service raises, no answer has a word of it."""

import io
import re

import pytest

from app.core.entities.identity import DEFAULT_PROJECT_ID, Principal, Role
from app.core.services.people.audit import AuditService

PATH, SECRET = "/home/someone/instance/app.db", "postgresql://app:hunter2@db/llm"
VERBS = {"get", "post", "put", "patch", "delete"}
QUERY = {"name": "rows", "before": "1", "after": "2", "base_model": "tiny-random", "row": "1"}
NO_SERVICE = {"/api/v1/monitor/health", "/api/v1/auth/whoami"}  # which answer by themselves


class Broken:
    """Any service of it, and any method of that, raises."""

    def __init__(self):
        self.identity = Door()
        self.audit = AuditService(BrokenService())  # its own fault is logged, and the answer stays

    def __getattr__(self, name):
        return BrokenService()


class BrokenService:
    def __getattr__(self, name):
        def fail(*_arguments, **_options):
            raise RuntimeError(f"cannot open {PATH} of {SECRET}")

        return fail


class Door(BrokenService):
    def authenticate(self, text):
        return Principal("user-0", "operator", DEFAULT_PROJECT_ID, Role.OPERATOR)


def requests(document):
    for path, item in document["paths"].items():
        for verb in sorted(item.keys() & VERBS):
            content = item[verb].get("requestBody", {}).get("content", {})
            wanted = [
                one for one in item[verb].get("parameters", ()) if one["in"] == "query" and one.get("required")
            ]
            sent = {"query_string": {one["name"]: QUERY[one["name"]] for one in wanted}}
            if "application/json" in content:
                sent["json"] = content["application/json"]["example"]
            elif "multipart/form-data" in content:
                sent["data"] = {"file": (io.BytesIO(b"{}"), "rows.jsonl")}
            yield verb, re.sub(r"\{\w+\}", "1", path), sent


@pytest.fixture
def broken(app, client, monkeypatch):
    monkeypatch.setitem(app.extensions, "services", Broken())
    return client


def test_no_route_tells_what_it_was(client, broken, caplog):
    found = list(requests(client.get("/openapi.json").json))
    assert len(found) > 50
    for verb, path, sent in found:
        if path in NO_SERVICE:
            continue
        answer = broken.open(path, method=verb, headers={"Authorization": "Bearer x"}, **sent)
        text = answer.get_data(as_text=True)
        where = f"{verb} {path}: {text[:300]}"
        assert answer.status_code == 500, where
        assert not any(word in text + str(answer.headers) for word in (PATH, SECRET, "hunter2", "RuntimeError")), (
            where
        )
        assert "Traceback" not in text, where
        code = answer.json["error"]["code"] if path.startswith("/v1/") else answer.json["code"]
        assert code == "internal_error", where
        assert answer.headers["X-Request-ID"], where
        if not path.startswith("/v1/"):
            assert answer.json["request_id"] == answer.headers["X-Request-ID"]
    assert SECRET in caplog.text  # it is in the log
