"""How often one may ask."""

import re
from dataclasses import replace

import pytest

from app.core.entities.identity import Role
from app.core.entities.limits import ProjectLimits
from app.core.interfaces.storage import NO_LIMITS
from app.core.services.people.limits import LimitService
from tests.rates import a_minute


@pytest.fixture
def limited(app, services, twins, monkeypatch):
    """``limited(project, rates…)``: a client of an application with those rates."""

    def make(project=NO_LIMITS, **rates):
        limits = LimitService(twins.jobs, project)
        changed = a_minute(limits=limits, **rates)
        monkeypatch.setattr(services.identity, "_rates", changed)
        monkeypatch.setitem(app.extensions, "services", replace(services, limits=limits, rates=changed))
        return app.test_client()

    return make


def remaining(answer):
    return [int(left) for left in re.findall(r";r=(\d+);t=\d+", answer.headers["RateLimit"])]


def test_a_user_over_all_routes(limited, bearer):
    client, first, second = limited(requests=3), bearer(), bearer()
    paths = ["/api/v1/models", "/api/v1/train", "/api/v1/models/x"]
    answers = [client.get(path, headers=first) for path in paths]
    assert [remaining(answer) for answer in answers] == [[2], [1], [0]]
    assert answers[0].headers["RateLimit-Policy"] == '"user";q=3;w=60'
    refused = client.get("/api/v1/models", headers=first)
    assert (refused.status_code, refused.json["code"]) == (429, "rate_limited")
    assert refused.content_type == "application/problem+json"
    assert 1 <= int(refused.headers["Retry-After"]) <= 120
    assert client.get("/api/v1/models", headers=second).status_code == 200


def test_a_stranger_by_address(limited):
    client = limited(requests=3)
    answers = [client.get("/api/v1/models", headers={"Authorization": f"Bearer {n}"}) for n in range(4)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
    elsewhere = client.get("/api/v1/models", environ_base={"REMOTE_ADDR": "192.0.2.7"})
    assert elsewhere.status_code == 401


def test_a_project_over_all_of_its_callers(limited, bearer):
    client = limited(ProjectLimits(requests=3), requests=2)
    mine, another, elsewhere = bearer(), bearer(), bearer(project="other")
    first = client.get("/api/v1/models", headers=mine)
    assert first.headers["RateLimit-Policy"] == '"user";q=2;w=60, "project";q=3;w=60'
    codes = [client.get("/api/v1/models", headers=mine).status_code for _ in range(3)]
    assert codes == [200, 429, 429]  # by the user's own rate: nothing of the project's is taken
    codes = [client.get("/api/v1/models", headers=another).status_code for _ in range(2)]
    assert codes == [200, 429]
    assert client.get("/api/v1/models", headers=elsewhere).status_code == 200


def test_a_project_has_limits_of_its_own(limited, bearer, twins):
    client, headers = limited(ProjectLimits(requests=1)), bearer()
    twins.jobs.set_limits("default", ProjectLimits(requests=2))
    assert [client.get("/api/v1/models", headers=headers).status_code for _ in range(3)] == [200, 200, 429]


def test_log_ins_by_address(limited):
    client = limited(log_ins=2)

    def log_in(address, username):
        body = {"username": username, "password": "wrong"}
        return client.post("/api/v1/auth/token", json=body, environ_base={"REMOTE_ADDR": address})

    assert [log_in("192.0.2.1", name).status_code for name in "abc"] == [401, 401, 429]
    assert log_in("192.0.2.2", "a").status_code == 401


def test_log_ins_by_account_from_anywhere(limited, services):
    client = limited(attempts=2)
    services.accounts.create_user("ada", "a good password", Role.VIEWER)

    def log_in(number, username, password):
        body = {"username": username, "password": password}
        return client.post("/api/v1/auth/token", json=body, environ_base={"REMOTE_ADDR": f"192.0.2.{number}"})

    assert [log_in(n, "ada", "wrong").status_code for n in range(2)] == [401, 401]
    refused, unknown = log_in(3, "ada", "a good password"), [log_in(n, "nobody", "wrong") for n in range(4, 7)]
    assert [answer.status_code for answer in unknown] == [401, 401, 429]
    for answer in (refused, unknown[-1]):  # nobody learns who is there
        assert (answer.status_code, answer.json["code"]) == (429, "too_many_attempts")
        assert answer.json["detail"] == refused.json["detail"]
        assert int(answer.headers["Retry-After"]) >= 1


def test_a_right_password_forgives_the_wrong_ones(limited, services):
    client = limited(attempts=2)
    services.accounts.create_user("ada", "a good password", Role.VIEWER)
    said = ["wrong", "a good password", "wrong", "a good password", "wrong"]
    bodies = [{"username": "ada", "password": password} for password in said]
    codes = [client.post("/api/v1/auth/token", json=body).status_code for body in bodies]
    assert codes == [401, 200, 401, 200, 401]


def test_tokens_of_a_caller_and_of_a_project(limited, bearer, app):
    client, headers = limited(ProjectLimits(tokens=30), tokens=20), bearer()
    body = {"model": "smollm2-135m-instruct", "messages": [{"role": "user", "content": "Hi"}]}
    rates = app.extensions["services"].rates
    principal = app.extensions["services"].identity.authenticate(headers["Authorization"].removeprefix("Bearer "))
    rates.spend(principal, 12)
    answer = client.post("/v1/chat/completions", json=body, headers=headers)
    assert remaining(answer)[1:] == [8, 18]
    assert '"user-tokens";q=20;w=60, "project-tokens";q=30;w=60' in answer.headers["RateLimit-Policy"]
    assert answer.headers["x-ratelimit-limit-tokens"] == "20"
    assert answer.headers["x-ratelimit-remaining-tokens"] == "8"
    assert re.fullmatch(r"\d+s", answer.headers["x-ratelimit-reset-tokens"])
    assert answer.headers["x-ratelimit-limit-requests"] == "1000000"
    other = client.get("/api/v1/models", headers=headers)
    assert "tokens" not in other.headers["RateLimit-Policy"]
    assert "x-ratelimit-limit-requests" not in other.headers


def test_probes_docs_and_metrics_are_free(limited):
    client = limited(requests=2)
    for path in ("/api/v1/monitor/health", "/api/v1/monitor/ready", "/docs", "/openapi.json", "/metrics"):
        answers = [client.get(path) for _ in range(5)]
        assert {answer.status_code for answer in answers} == {200}
        assert "RateLimit" not in answers[-1].headers
