"""What a project may have: who sees it, who sets it, and what it refuses."""

import io

import pytest

from app.core.entities.identity import Role
from app.core.entities.limits import ProjectLimits
from tests.unit.conftest import SOUND_ROWS

PLACE = "/api/v1/projects/default/limits"


def test_a_developer_sees_and_an_operator_sets(client, bearer):
    developer, operator = bearer(Role.DEVELOPER), bearer(Role.OPERATOR, "other")
    before = client.get(PLACE, headers=developer).json
    assert before["limits"] == {
        "running": None,
        "queued": 1000,
        "requests": None,
        "tokens": None,
        "storage_bytes": None,
        "versions": None,
    }
    assert before["used"] == {"running": 0, "queued": 0, "storage_bytes": 0, "versions": 0}
    answer = client.put(PLACE, json={"tokens": 5000, "versions": 2}, headers=operator)
    assert (answer.status_code, answer.json["limits"]["tokens"]) == (200, 5000)
    after = client.get(PLACE, headers=developer).json
    assert (after["own"]["versions"], after["own"]["queued"], after["limits"]["queued"]) == (2, None, 1000)
    client.put(PLACE, json={"queued": 3}, headers=operator)
    last = client.get(PLACE, headers=developer).json
    assert (last["own"]["versions"], last["limits"]["queued"]) == (None, 3)


def test_nobody_else(client, bearer):
    assert client.get(PLACE, headers=bearer(Role.VIEWER)).status_code == 403
    assert client.put(PLACE, json={}, headers=bearer(Role.ADMIN)).status_code == 403
    for role in (Role.DEVELOPER, Role.ADMIN):
        refused = client.get(PLACE, headers=bearer(role, "other"))
        assert (refused.status_code, refused.json["code"]) == (404, "project_not_found")
    nowhere = client.put("/api/v1/projects/nowhere/limits", json={}, headers=bearer())
    assert (nowhere.status_code, nowhere.json["code"]) == (404, "project_not_found")


@pytest.mark.parametrize(
    "body", [{"tokens": 0}, {"versions": "2"}, {"bytes": 1}, {"tokens": 2**60}, {"queued": 1.5}]
)
def test_faults(caller, twins, body):
    answer = caller("PUT", PLACE, json=body)
    assert (answer.status_code, answer.json["errors"][0]["where"]) == (422, next(iter(body)))
    assert twins.jobs.limits("default") == ProjectLimits()


def test_what_finds_no_room(caller, client, bearer, twins, quiet_settings):
    def upload(name, text=SOUND_ROWS):
        file = {"file": (io.BytesIO(text.encode()), "rows.json")}
        return caller("POST", f"/api/v1/datasets?name={name}", data=file)

    def folders():
        return {path.name for path in quiet_settings.data_dir.rglob("*") if not path.name.endswith(".lock")}

    size = upload("first").json["size"]
    before = folders()
    caller("PUT", PLACE, json={"storage_bytes": size})
    refused = upload("second", SOUND_ROWS.replace("Hello", "Goodbye"))
    assert (refused.status_code, refused.json["code"]) == (403, "quota_exceeded")
    assert f"{size:,} of the {size:,} bytes" in refused.json["detail"]
    assert "operator" in refused.json["detail"]
    assert len(caller("GET", "/api/v1/datasets").json["data"]) == 1
    assert folders() == before
    caller("PUT", PLACE, json={})
    assert upload("first", SOUND_ROWS.replace("Hello", "Again")).json["code"] == "dataset_name_taken"
    assert upload("first").json["code"] == "dataset_name_taken"
    assert folders() == before  # what is refused takes no room, and what was there stays
    caller("PUT", PLACE, json={"storage_bytes": size})
    job = caller("POST", "/api/v1/train", json={"dataset_path": "data/raw/sound.json"})
    assert (job.status_code, job.json["code"]) == (403, "quota_exceeded")
    assert twins.job_count() == 0
    assert caller("GET", PLACE).json["used"]["storage_bytes"] == size
