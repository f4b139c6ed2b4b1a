"""How often one may ask."""

import re

import pytest

from app import create_app


@pytest.fixture
def client(quiet_settings, services):
    settings = quiet_settings.model_copy(update={"rate_limit": "3 per minute", "login_rate_limit": "2 per minute"})
    return create_app(settings, services).test_client()


def remaining(answer):
    return int(re.search(r";r=(\d+);t=\d+$", answer.headers["RateLimit"])[1])


def test_a_user_over_all_routes(client, bearer):
    first, second = bearer(), bearer()
    paths = ["/api/v1/models", "/api/v1/train", "/api/v1/models/x"]
    answers = [client.get(path, headers=first) for path in paths]
    assert [remaining(answer) for answer in answers] == [2, 1, 0]
    assert answers[0].headers["RateLimit-Policy"] == '"user";q=3;w=60'
    refused = client.get("/api/v1/models", headers=first)
    assert (refused.status_code, refused.json["code"]) == (429, "rate_limited")
    assert refused.content_type == "application/problem+json"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert client.get("/api/v1/models", headers=second).status_code == 200


def test_a_stranger_by_address(client):
    answers = [client.get("/api/v1/models", headers={"Authorization": f"Bearer {n}"}) for n in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
    elsewhere = client.get("/api/v1/models", environ_base={"REMOTE_ADDR": "192.0.2.7"})
    assert elsewhere.status_code == 401


def test_log_ins_by_address(client):
    def log_in(address, username):
        body = {"username": username, "password": "wrong"}
        return client.post("/api/v1/auth/token", json=body, environ_base={"REMOTE_ADDR": address})

    assert [log_in("192.0.2.1", name).status_code for name in "abc"] == [401, 401, 429]
    assert log_in("192.0.2.2", "a").status_code == 401


def test_probes_docs_and_metrics_are_free(client):
    for path in ("/api/v1/monitor/health", "/api/v1/monitor/ready", "/docs", "/openapi.json", "/metrics"):
        answers = [client.get(path) for _ in range(5)]
        assert {answer.status_code for answer in answers} == {200}
        assert "RateLimit" not in answers[-1].headers


def test_without_its_redis_it_counts_by_itself(quiet_settings, services, bearer):
    settings = quiet_settings.model_copy(
        update={"redis_url": "redis://127.0.0.1:1/0", "rate_limit": "2 per minute"}
    )
    client, headers = create_app(settings, services).test_client(), bearer()
    assert [client.get("/api/v1/models", headers=headers).status_code for _ in range(3)] == [200, 200, 429]


def test_two_processes_share_a_redis(quiet_settings, services, bearer, redis_url):
    settings = quiet_settings.model_copy(update={"redis_url": redis_url, "rate_limit": "2 per minute"})
    clients = [create_app(settings, services).test_client() for _ in range(2)]
    headers = bearer()
    codes = [clients[n % 2].get("/api/v1/models", headers=headers).status_code for n in range(3)]
    assert codes == [200, 200, 429]
