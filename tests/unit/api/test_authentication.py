"""Every route but the open ones wants a token, and the role that its verb wants."""

import time

import jwt
import pytest

from app.core.entities.identity import Role
from app.implementations.identity.tokens import AUDIENCE, ISSUER

OPEN = {"auth.token", "monitor.health", "monitor.ready", "docs.docs", "api-docs.openapi_json", "static", "metrics"}
WRITES = {
    *("train.submit", "train.estimate", "train.cancel", "train.pause", "train.resume", "train.retry"),
    *("datasets.upload", "datasets.upload_version", "datasets.delete", "datasets.restore"),
    *("datasets.set_tag", "datasets.remove_tag", "models.set_alias", "models.remove_alias"),
    "usage.sums",
}

ADMINS = {"engines.list_engines", "engines.load_adapter", "engines.unload_adapter"}


def guarded(app):
    for rule in app.url_map.iter_rules():
        if rule.endpoint not in OPEN:
            for method in rule.methods - {"OPTIONS", "HEAD"}:
                path = rule.rule
                for argument in rule.arguments:
                    path = path.replace(f"<{argument}>", "x").replace(f"<path:{argument}>", "x")
                yield rule.endpoint, method, path


def test_nothing_opens_without_a_token(app, client):
    found = list(guarded(app))
    assert len(found) == 41
    for endpoint, method, path in found:
        answer = client.open(path, method=method)
        code = answer.json["error"]["code"] if path.startswith("/v1/") else answer.json["code"]
        assert (answer.status_code, code) == (401, "unauthorized"), endpoint
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_viewer_reads_a_developer_writes_and_an_admin_operates(app, client, bearer):
    viewer, developer, admin = bearer(Role.VIEWER), bearer(Role.DEVELOPER), bearer(Role.ADMIN)
    for endpoint, method, path in guarded(app):
        refused = client.open(path, method=method, headers=viewer).status_code == 403
        assert refused == (endpoint in WRITES | ADMINS), endpoint
        refused = client.open(path, method=method, headers=developer).status_code == 403
        assert refused == (endpoint in ADMINS), endpoint
        assert client.open(path, method=method, headers=admin).status_code != 403, endpoint


def test_a_strangers_body_is_never_read(client):
    answer = client.post("/api/v1/train", data="[" * 100_000, content_type="application/json")
    assert answer.status_code == 401


@pytest.fixture
def key(settings, tokens):
    return (settings.instance_dir / "secret_key").read_bytes()


def claims(**changes):
    now = int(time.time())
    all_of_them = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "user-0",
        "jti": "1",
        "iat": now,
        "exp": now + 60,
        "project": "default",
        "username": "user0",
    }
    return {name: value for name, value in {**all_of_them, **changes}.items() if value is not None}


def forged(key):
    """Name → token."""
    sound = jwt.encode(claims(), key, "HS256")
    return {
        "alg none": jwt.encode(claims(), None, "none"),
        "another algorithm": jwt.encode(claims(), key * 2, "HS512"),
        "another key": jwt.encode(claims(), b"k" * 32, "HS256"),
        "another audience": jwt.encode(claims(aud="elsewhere"), key, "HS256"),
        "another issuer": jwt.encode(claims(iss="elsewhere"), key, "HS256"),
        "from the future": jwt.encode(claims(iat=int(time.time()) + 3600), key, "HS256"),
        **{f"without {name}": jwt.encode(claims(**{name: None}), key, "HS256") for name in
           ("exp", "iss", "aud", "sub", "jti", "iat")},
        "a subject who is a number": jwt.encode({**claims(), "sub": 5}, key, "HS256"),
        "another project": jwt.encode(claims(project="other"), key, "HS256"),
        "no project": jwt.encode(claims(project=None), key, "HS256"),
        "a user who is gone": jwt.encode(claims(sub="user-9"), key, "HS256"),
        "truncated": sound[:-4],
        "without its signature": sound.rpartition(".")[0] + ".",
        "empty parts": "..",
        "not a token": "hello",
        "not ASCII": "ø.ø.ø",
    }  # fmt: skip


def test_the_sound_token_that_the_forged_ones_differ_from(client, bearer, key):
    bearer()
    headers = {"Authorization": f"Bearer {jwt.encode(claims(), key, 'HS256')}"}
    assert client.get("/api/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("name", forged(b"x" * 32))
def test_forged_tokens(client, bearer, key, name):
    bearer()
    token = forged(key)[name].encode("utf-8").decode("latin-1")  # as a header arrives
    answer = client.get("/api/v1/models", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json["code"]) == (401, "token_invalid")


def test_an_expired_token_says_so(client, bearer, key):
    bearer()
    token = jwt.encode(claims(exp=int(time.time()) - 1), key, "HS256")
    answer = client.get("/api/v1/models", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json["code"]) == (401, "token_expired")


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "bearer"])
def test_a_header_without_a_token(client, header):
    answer = client.get("/api/v1/models", headers={"Authorization": header})
    assert (answer.status_code, answer.json["code"]) == (401, "unauthorized")
