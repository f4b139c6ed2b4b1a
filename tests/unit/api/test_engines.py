"""The operator's adapters over HTTP."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.core.entities.engines import LoadedAdapter
from app.core.entities.identity import DEFAULT_PROJECT_ID, Role
from app.core.entities.models import ModelAlias, ModelVersion

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ADAPTERS = "/api/v1/engines/tiny-random/adapters"
VERSION = ModelVersion(
    id="v1",
    project_id=DEFAULT_PROJECT_ID,
    name="support",
    number=0,
    base_model="tiny-random",
    template_hash="0" * 64,
    artifacts="v1",
    job_id=None,
    dataset_digest="0" * 64,
    config={},
    metrics={},
    created_by=None,
    created_at=NOW,
)


@pytest.fixture
def published(twins):
    return [twins.versions.publish(replace(VERSION, id=name)) for name in ("v1", "v2")]


def pins(twins):
    return {version.number: version.pinned for version in twins.versions.kept}


def test_an_adapter_is_loaded_pinned_and_unloaded(caller, twins, published):
    assert caller("PUT", f"{ADAPTERS}/support:1", json={"pinned": True}).status_code == 200
    answer = caller("PUT", f"{ADAPTERS}/support", json={})
    assert (answer.status_code, answer.json) == (200, {"reference": "support:2", "pinned": False})
    tiny, other = caller("GET", "/api/v1/engines").json["data"]
    assert tiny == {
        "base_model": "tiny-random",
        "resident": True,
        "kind": "ours",
        "context": 256,
        "adapters": [
            {"reference": "support:1", "bytes": 100, "pinned": True},
            {"reference": "support:2", "bytes": 100, "pinned": False},
        ],
        "others": 0,
        "other_bytes": 0,
    }
    assert other["adapters"] == []
    assert pins(twins) == {1: True, 2: False}
    versions = caller("GET", "/api/v1/models/support/versions").json["data"]
    assert [one["pinned"] for one in versions] == [False, True]
    assert versions[0]["servable"].keys() == {"ours", "vllm", "other"}
    assert versions[0]["servable"]["ours"] is True
    assert caller("PUT", f"{ADAPTERS}/support:1", json={"pinned": False}).status_code == 200
    assert pins(twins) == {1: False, 2: False}
    assert caller("DELETE", f"{ADAPTERS}/support:1").status_code == 204
    assert caller("DELETE", f"{ADAPTERS}/support:1").json["code"] == "adapter_not_loaded"
    assert list(twins.engines.held["tiny-random"]) == ["v2"]


def test_a_pin_that_an_engine_has_lost_can_be_taken_away(caller, twins, published):
    caller("PUT", f"{ADAPTERS}/support:1", json={"pinned": True})
    twins.engines.held["tiny-random"].clear()  # it has been restarted
    assert caller("DELETE", f"{ADAPTERS}/support:1").status_code == 204
    assert pins(twins)[1] is False


def test_aliases_are_references_too_if_they_mean_one_version(caller, twins, published):
    twins.versions.set_alias(ModelAlias(DEFAULT_PROJECT_ID, "support", "old", {1: 1}, None, NOW))
    twins.versions.set_alias(ModelAlias(DEFAULT_PROJECT_ID, "support", "both", {1: 1, 2: 1}, None, NOW))
    assert caller("PUT", f"{ADAPTERS}/support@old", json={}).status_code == 200
    assert list(twins.engines.held["tiny-random"]) == ["v1"]
    assert caller("PUT", f"{ADAPTERS}/support@both", json={}).json["code"] == "split_alias"


def test_an_engine_that_does_not_answer_leaves_all_as_it_was(caller, twins, published):
    caller("PUT", f"{ADAPTERS}/support:1", json={"pinned": True})
    twins.engines.away = {"tiny-random"}
    answer = caller("GET", "/api/v1/engines").json["data"][0]
    assert (answer["resident"], answer["kind"], answer["adapters"]) == (False, None, [])
    assert caller("PUT", f"{ADAPTERS}/support:2", json={"pinned": True}).status_code == 503
    assert caller("DELETE", f"{ADAPTERS}/support:1").status_code == 503
    assert pins(twins) == {1: True, 2: False}


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (f"{ADAPTERS}/support:9", {}, 404, "model_not_found"),
        (f"{ADAPTERS}/nobody", {}, 404, "model_not_found"),
        (f"{ADAPTERS}/..", {}, 422, "invalid_request"),
        ("/api/v1/engines/smollm2-135m-instruct/adapters/support", {}, 422, "wrong_base_model"),
        (f"{ADAPTERS}/whole", {}, 422, "no_adapter"),
        (f"{ADAPTERS}/labels", {}, 422, "no_adapter"),
        (f"{ADAPTERS}/support", {"pinned": "yes"}, 422, "invalid_request"),
        (f"{ADAPTERS}/support", {"pinned": 1}, 422, "invalid_request"),
        (f"{ADAPTERS}/support", {"kept": True}, 422, "invalid_request"),
    ],
)
def test_what_cannot_be_loaded(caller, twins, published, path, body, status, code):
    twins.versions.publish(replace(VERSION, id="w", name="whole", config={"adaptation": "full"}))
    twins.versions.publish(replace(VERSION, id="l", name="labels", config={"objective": "classification"}))
    answer = caller("PUT", path, json=body)
    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert twins.engines.held == {"tiny-random": {}, "smollm2-135m-instruct": {}}


@pytest.mark.parametrize("reference", ["..", "support:x", "support:0", "support@", "a b", "a" * 65])
def test_a_reference_that_is_no_sound_name_unloads_nothing(caller, twins, published, reference):
    caller("PUT", f"{ADAPTERS}/support:1", json={"pinned": True})
    answer = caller("DELETE", f"{ADAPTERS}/{reference}")
    assert (answer.status_code, answer.json["code"]) == (422, "invalid_request")
    assert answer.json["detail"].startswith(f"{reference!r} is not a model reference")
    assert "v1" in twins.engines.held["tiny-random"]
    assert pins(twins)[1] is True


def test_other_projects_adapters_are_only_counted(caller, client, bearer, twins, published):
    theirs = twins.versions.publish(replace(VERSION, id="t1", project_id="other", name="secret"))
    twins.engines.held["tiny-random"][theirs.id] = LoadedAdapter(theirs.id, 70, True)
    caller("PUT", f"{ADAPTERS}/support:1", json={})
    answer = caller("GET", "/api/v1/engines")
    assert "secret" not in answer.get_data(as_text=True)
    tiny = answer.json["data"][0]
    assert ([one["reference"] for one in tiny["adapters"]], tiny["others"], tiny["other_bytes"]) == (
        ["support:1"],
        1,
        70,
    )
    for method, body in (("PUT", {}), ("DELETE", None)):
        assert caller(method, f"{ADAPTERS}/secret:1", json=body).status_code == 404
        stranger = client.open(f"{ADAPTERS}/support:1", method=method, json=body, headers=bearer(project="other"))
        assert stranger.status_code == 404
    assert set(twins.engines.held["tiny-random"]) == {"t1", "v1"}


def test_engines_are_an_admins(client, bearer, published):
    developer = bearer(Role.DEVELOPER)
    for method, path in (
        ("GET", "/api/v1/engines"),
        ("PUT", f"{ADAPTERS}/support"),
        ("DELETE", f"{ADAPTERS}/support"),
    ):
        assert client.open(path, method=method, json={}, headers=developer).status_code == 403
