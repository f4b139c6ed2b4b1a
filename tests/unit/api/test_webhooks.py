"""Webhooks, over HTTP."""

import pytest

URL = "https://hooks.example.com/llm"


@pytest.fixture
def made(caller):
    answer = caller("POST", "/api/v1/webhooks", json={"url": URL})
    assert answer.status_code == 201
    return answer.json


def test_a_webhook_from_its_beginning_to_its_end(caller, made):
    path = f"/api/v1/webhooks/{made['id']}"
    assert made["secret"].startswith("whsec_")
    assert made["events"] == [f"fine_tuning.job.{end}" for end in ("succeeded", "failed", "cancelled")]
    shown = caller("GET", path).json
    assert shown == {key: value for key, value in made.items() if key != "secret"}
    assert caller("GET", "/api/v1/webhooks").json == {"data": [shown]}
    changed = caller("PATCH", path, json={"events": ["fine_tuning.job.failed"], "enabled": False}).json
    assert (changed["events"], changed["enabled"], changed["url"]) == (["fine_tuning.job.failed"], False, URL)
    rotated = caller("POST", f"{path}/rotate-secret").json
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != made["secret"]
    assert rotated["old_secret_until"] is not None
    ping = caller("POST", f"{path}/ping")
    assert (ping.status_code, ping.json["type"], ping.json["state"]) == (202, "webhook.ping", "pending")
    assert caller("GET", f"{path}/deliveries?limit=1").json == {"data": [ping.json], "next": None}
    assert "body" not in ping.json
    assert caller("DELETE", path).status_code == 204
    for method, place in (
        ("GET", path),
        ("DELETE", path),
        ("POST", f"{path}/ping"),
        ("GET", f"{path}/deliveries"),
    ):
        assert caller(method, place).json["code"] == "webhook_not_found"


def test_deliveries_come_in_pages(caller, made):
    path = f"/api/v1/webhooks/{made['id']}"
    sent = {caller("POST", f"{path}/ping").json["event_id"] for _ in range(5)}
    whole = [one["event_id"] for one in caller("GET", f"{path}/deliveries").json["data"]]
    assert (len(whole), set(whole)) == (5, sent)
    after = ""
    for page in (whole[:2], whole[2:4], whole[4:]):
        answer = caller("GET", f"{path}/deliveries?limit=2{after}").json
        assert [one["event_id"] for one in answer["data"]] == page
        assert answer["next"] == (page[-1] if len(page) == 2 else None)
        after = f"&after={answer['next']}"
    other = caller("POST", "/api/v1/webhooks", json={"url": URL}).json["id"]
    for place in (f"{path}/deliveries?after=evt_none", f"/api/v1/webhooks/{other}/deliveries?after={whole[0]}"):
        answer = caller("GET", place)
        assert (answer.status_code, [one["where"] for one in answer.json["errors"]]) == (422, ["after"])


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"url": "http://hooks.example.com/"}, "url"),
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": "https://169.254.169.254/latest"}, "url"),
        ({"url": "https://user:word@example.com/"}, "url"),
        ({"url": 5}, "url"),
        ({"events": []}, "events"),
        ({"events": ["fine_tuning.job.begun"]}, "events.0"),
        ({"enabled": "yes"}, "enabled"),
        ({"enabled": 0}, "enabled"),
        ({"secret": "whsec_mine"}, "secret"),
    ],
)
def test_what_is_refused_writes_nothing(caller, made, changes, where):
    for method, place in (("POST", "/api/v1/webhooks"), ("PATCH", f"/api/v1/webhooks/{made['id']}")):
        answer = caller(method, place, json={**({"url": URL} if method == "POST" else {}), **changes})
        assert answer.status_code == 422, answer.json
        assert next(fault["where"] for fault in answer.json["errors"]).startswith(where.split(".")[0])
    assert caller("GET", "/api/v1/webhooks").json["data"] == [
        {key: value for key, value in made.items() if key != "secret"}
    ]
