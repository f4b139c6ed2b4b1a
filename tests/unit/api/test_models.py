"""Aliases over HTTP."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.core.entities.identity import DEFAULT_PROJECT_ID
from app.core.entities.inference import Adapter
from app.core.entities.models import ModelVersion

ALIASES = "/api/v1/models/support/aliases"


@pytest.fixture
def published(twins):
    version = ModelVersion(
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
        created_at=datetime.now(UTC),
    )
    return [twins.versions.publish(replace(version, id=name)) for name in ("v1", "v2")]


def test_an_alias_names_a_version_or_is_split(caller, published):
    answer = caller("PUT", f"{ALIASES}/champion", json={"version": 2})
    assert answer.status_code == 200
    assert answer.json["set_at"]
    expected = {"alias": "champion", "reference": "support@champion", "weights": {"2": 1}, "set_by": "user-0"}
    assert {key: answer.json[key] for key in expected} == expected
    assert caller("PUT", f"{ALIASES}/canary", json={"weights": {"1": 90, "2": 10}}).status_code == 200
    listed = caller("GET", ALIASES).json["data"]
    assert [(one["alias"], one["weights"]) for one in listed] == [
        ("canary", {"1": 90, "2": 10}),
        ("champion", {"2": 1}),
    ]
    assert caller("DELETE", f"{ALIASES}/canary").status_code == 204
    assert caller("DELETE", f"{ALIASES}/canary").json["code"] == "alias_not_found"
    assert [one["alias"] for one in caller("GET", ALIASES).json["data"]] == ["champion"]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, ["version"]),
        ({"version": 1, "weights": {"1": 1}}, ["version"]),
        ({"version": 0}, ["version"]),
        ({"version": "1"}, ["version"]),
        ({"version": None}, ["version"]),
        ({"weights": {}}, ["weights"]),
        ({"weights": [1]}, ["weights"]),
        ({"weights": {str(number): 1 for number in range(1, 18)}}, ["weights"]),
        ({"weights": {"one": 1, "2": 0, "1": 0.5}}, ["weights.1.value", "weights.2.value", "weights.one.key"]),
        ({"weights": {"1": 1_000_001}, "more": 1}, ["more", "weights.1.value"]),
    ],
)
def test_what_is_no_alias_is_refused_with_every_fault(caller, published, twins, body, where):
    answer = caller("PUT", f"{ALIASES}/champion", json=body)
    assert answer.status_code == 422
    assert sorted(fault["where"] for fault in answer.json["errors"]) == where
    assert twins.versions.aliases(DEFAULT_PROJECT_ID, "support") == []


def test_a_version_that_is_not_there_and_a_name_that_is_none(caller, published, twins):
    answer = caller("PUT", f"{ALIASES}/champion", json={"weights": {"1": 1, "3": 1, "7": 1}})
    assert (answer.status_code, answer.json["code"]) == (404, "model_not_found")
    assert [fault["where"] for fault in answer.json["errors"]] == ["support:3", "support:7"]
    assert caller("PUT", f"{ALIASES}/-x", json={"version": 1}).json["code"] == "bad_name"
    assert twins.versions.aliases(DEFAULT_PROJECT_ID, "support") == []


def test_another_projects_aliases_do_not_exist(caller, client, bearer, published):
    caller("PUT", f"{ALIASES}/champion", json={"version": 1})
    stranger = bearer(project="other")
    for method, path, body in (
        ("GET", ALIASES, None),
        ("PUT", f"{ALIASES}/champion", {"version": 2}),
        ("DELETE", f"{ALIASES}/champion", None),
    ):
        assert client.open(path, method=method, json=body, headers=stranger).status_code == 404
    assert caller("GET", ALIASES).json["data"][0]["weights"] == {"1": 1}


def test_a_version_is_deleted_once_no_alias_carries_it(caller, published, twins):
    twins.engines.load("tiny-random", Adapter("v2", "/registry/v2"))
    caller("PUT", f"{ALIASES}/champion", json={"weights": {"1": 1, "2": 1}})
    carried = caller("DELETE", "/api/v1/models/support/versions/2")
    assert (carried.status_code, carried.json["code"]) == (409, "version_has_alias")
    assert "champion" in carried.json["detail"]
    caller("DELETE", f"{ALIASES}/champion")
    assert caller("DELETE", "/api/v1/models/support/versions/2").status_code == 204
    assert [one["number"] for one in caller("GET", "/api/v1/models/support/versions").json["data"]] == [1]
    assert twins.engines.held["tiny-random"] == {}
    assert caller("DELETE", "/api/v1/models/support/versions/2").status_code == 404
    assert caller("PUT", f"{ALIASES}/champion", json={"version": 2}).status_code == 404
    assert twins.versions.publish(replace(published[1], id="v3")).number == 3


def test_a_version_is_deleted_though_its_engine_is_away(caller, published, twins):
    twins.engines.away.add("tiny-random")
    assert caller("DELETE", "/api/v1/models/support/versions/1").status_code == 204
