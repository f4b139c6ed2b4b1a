"""What the settings say of rates and keys, over a real database, and over one Redis for two applications."""

import pytest
from pydantic import SecretStr

from app import create_app
from app.bootstrap import prepare_instance
from app.extensions import db

PASSWORD = "correct horse battery"


@pytest.fixture
def open_app(settings):
    """Applications over one database, with those settings."""
    opened = []

    def make(**changes):
        app = create_app(settings.model_copy(update=changes))
        if not opened:
            prepare_instance(app)
        opened.append(app)
        return app

    yield make
    for app in opened:
        with app.app_context():
            db.engine.dispose()


def log_in(app, address="192.0.2.1", password=PASSWORD):
    body = {"username": "admin", "password": password}
    return app.test_client().post("/api/v1/auth/token", json=body, environ_base={"REMOTE_ADDR": address})


def test_two_applications_count_together(open_app, redis_server):
    redis_server.flush()
    changes = {
        "redis_url": redis_server.url,
        "rate_limit": "3 per minute",
        "login_account_rate_limit": "2 per minute",
    }
    apps = [open_app(**changes) for _ in range(2)]
    codes = [apps[n % 2].test_client().get("/api/v1/models").status_code for n in range(4)]
    assert codes == [401, 401, 401, 429]
    answers = [log_in(apps[n % 2], f"192.0.2.{n}", "wrong") for n in range(3)]
    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert answers[2].json["code"] == "too_many_attempts"


def test_while_redis_is_away_each_counts_for_itself(open_app, redis_server):
    apps = [open_app(redis_url=redis_server.url, rate_limit="2 per minute") for _ in range(2)]
    with redis_server.away():
        for app in apps:
            client = app.test_client()
            assert [client.get("/api/v1/models").status_code for _ in range(3)] == [401, 401, 429]


def test_a_key_of_a_request_holds_in_every_process(open_app):
    first, second = (open_app(admin_password=SecretStr(PASSWORD)) for _ in range(2))
    headers = {"Authorization": f"Bearer {log_in(first).json['access_token']}", "Idempotency-Key": "k"}
    body = {"name": "ci", "role": "viewer"}
    made, again = (
        app.test_client().post("/api/v1/service-accounts", json=body, headers=headers) for app in (first, second)
    )
    assert (made.status_code, again.status_code, again.json) == (201, 201, made.json)
    assert again.headers["Idempotency-Replayed"] == "true"
    other = second.test_client().post("/api/v1/service-accounts", json={**body, "name": "cd"}, headers=headers)
    assert other.json["code"] == "idempotency_key_reused"
