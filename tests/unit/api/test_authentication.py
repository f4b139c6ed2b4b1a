"""Every route but the open ones wants a token, and no hostile one is taken. (Roles: test_access.py.)"""

import time

import jwt
import pytest

from app.core.entities.identity import Role
from app.gateway.access import OPEN
from app.implementations.identity.secret_keys import SecretKeys
from app.implementations.identity.tokens import AUDIENCE, ISSUER, JwtIssuer

KID = "0123456789abcdef"  # the fixture kid makes it the real one


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
    assert len(found) == 95
    for endpoint, method, path in found:
        answer = client.open(path, method=method)
        code = answer.json["error"]["code"] if path.startswith("/v1/") else answer.json["code"]
        assert (answer.status_code, code) == (401, "unauthorized"), endpoint
        assert answer.headers["WWW-Authenticate"] == "Bearer"


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
        "sid": "session-0",
    }
    return {name: value for name, value in {**all_of_them, **changes}.items() if value is not None}


def signed(key, algorithm="HS256", kid=None, headers=None, **changes):
    """With the name of the service's own key, unless told another."""
    kid = KID if kid is None else kid
    return jwt.encode(claims(**changes), key, algorithm, headers={"kid": kid, **(headers or {})})


def forged(key, others_key):
    """Name → token."""
    sound = signed(key)
    jwk = {"kty": "oct", "k": "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg"}
    return {
        "alg none": signed(None, "none"),
        "alg none, spelt otherwise": sound.replace(sound.split(".")[0], "eyJhbGciOiJOb05lIiwidHlwIjoiSldUIn0", 1),
        "another algorithm": signed(key * 2, "HS512"),
        "another key": signed(b"k" * 32),
        "the key of another, under its own name": signed(others_key, kid="0" * 16),
        "a key that comes with the token": signed(b"x" * 32, headers={"jwk": jwk}),
        "an address of keys that comes with the token": signed(b"x" * 32, headers={"jku": "http://127.0.0.1:9/"}),
        "an address of a certificate": signed(b"x" * 32, headers={"x5u": "http://127.0.0.1:9/"}),
        "the name of the key as the key": signed(KID.encode() * 2),
        "a short signature": sound.rpartition(".")[0] + ".AAAA",
        "no name of a key": jwt.encode(claims(), key, "HS256"),
        "a path as the name of a key": signed(key, kid="../../../../dev/null"),
        "another audience": signed(key, aud="elsewhere"),
        "another issuer": signed(key, iss="elsewhere"),
        "from the future": signed(key, iat=int(time.time()) + 3600),
        "not yet good": signed(key, nbf=int(time.time()) + 3600),
        **{f"without {name}": signed(key, **{name: None}) for name in
           ("exp", "iss", "aud", "sub", "jti", "iat", "project", "sid")},
        "a subject who is a number": signed(key, sub=5),
        "another project": signed(key, project="other"),
        "a project that is a list": signed(key, project=["default"]),
        "a user who is gone": signed(key, sub="user-9"),
        "another's session": signed(key, sid="session-1"),
        "a session that never was": signed(key, sid="session-9"),
        "a session that is a list": signed(key, sid=["session-0"]),
        "truncated": sound[:-4],
        "without its signature": sound.rpartition(".")[0] + ".",
        "with claims of another": ".".join((sound.split(".")[0], signed(key, sub="user-1").split(".")[1],
                                            sound.split(".")[2])),
        "huge": signed(key, padding="x" * 50_000),
        "many dots": "." * 3000,
        "empty parts": "..",
        "not a token": "hello",
        "not ASCII": "ø.ø.ø",
    }  # fmt: skip


@pytest.fixture
def kid(tokens, monkeypatch):
    name = jwt.get_unverified_header(tokens.issue({"sub": "x"}, 60))["kid"]
    monkeypatch.setattr("tests.unit.api.test_authentication.KID", name)
    return name


def test_the_sound_token_that_the_forged_ones_differ_from(client, bearer, key, kid):
    bearer()
    headers = {"Authorization": f"Bearer {signed(key)}"}
    assert client.get("/api/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("name", forged(b"x" * 32, b"y" * 32))
def test_forged_tokens(client, bearer, key, kid, name, tmp_path):
    bearer()
    bearer()
    JwtIssuer(SecretKeys(None, tmp_path / "another service"))
    others_key = (tmp_path / "another service").read_bytes()
    token = forged(key, others_key)[name].encode("utf-8").decode("latin-1")  # as a header arrives
    answer = client.get("/api/v1/models", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json["code"]) == (401, "token_invalid")


def test_an_expired_token_says_so(client, bearer, key, kid):
    bearer()
    token = signed(key, exp=int(time.time()) - 1)
    answer = client.get("/api/v1/models", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.json["code"]) == (401, "token_expired")


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "bearer"])
def test_a_header_without_a_token(client, header):
    answer = client.get("/api/v1/models", headers={"Authorization": header})
    assert (answer.status_code, answer.json["code"]) == (401, "unauthorized")


# --- Sessions ---


@pytest.fixture
def alice(services):
    services.accounts.create_user("alice", "correct horse battery", Role.DEVELOPER)


@pytest.fixture
def log_in(client, alice):
    def log_in():
        body = {"username": "alice", "password": "correct horse battery"}
        return client.post("/api/v1/auth/token", json=body).json

    return log_in


def whoami(client, token):
    return client.get("/api/v1/auth/whoami", headers={"Authorization": f"Bearer {token}"})


def test_a_refresh_token_is_good_once_and_its_reuse_ends_the_session(client, log_in):
    first, other = log_in(), log_in()
    second = client.post("/api/v1/auth/refresh", json={"refresh_token": first["refresh_token"]})
    assert second.status_code == 200
    assert second.json["refresh_token"] != first["refresh_token"]
    assert whoami(client, second.json["access_token"]).json["username"] == "alice"
    stolen = client.post("/api/v1/auth/refresh", json={"refresh_token": first["refresh_token"]})
    assert (stolen.status_code, stolen.json["code"]) == (401, "refresh_token_invalid")
    late = client.post("/api/v1/auth/refresh", json={"refresh_token": second.json["refresh_token"]})
    assert late.status_code == 401
    for token in (first["access_token"], second.json["access_token"]):
        assert whoami(client, token).status_code == 401
    assert whoami(client, other["access_token"]).status_code == 200


def test_a_log_out_revokes_the_session_alone(client, log_in):
    mine, other = log_in(), log_in()
    headers = {"Authorization": f"Bearer {mine['access_token']}"}
    assert client.post("/api/v1/auth/logout", headers=headers).status_code == 204
    assert whoami(client, mine["access_token"]).json["code"] == "token_invalid"
    refused = client.post("/api/v1/auth/refresh", json={"refresh_token": mine["refresh_token"]})
    assert refused.status_code == 401
    assert whoami(client, other["access_token"]).status_code == 200


@pytest.mark.parametrize("text", ["x", "llmftr_", "llmftr_" + "a" * 64, "llmftr_" + "ø" * 64, "llmft_" + "a" * 46])
def test_what_is_no_refresh_token(client, log_in, text):
    token = log_in()["access_token"]
    answer = client.post("/api/v1/auth/refresh", json={"refresh_token": text})
    assert (answer.status_code, answer.json["code"]) == (401, "refresh_token_invalid")
    assert whoami(client, token).status_code == 200


def test_a_refresh_token_opens_no_route(client, log_in):
    assert whoami(client, log_in()["refresh_token"]).status_code == 401


def test_the_key_that_signs_is_rotated_under_the_tokens_that_are_out(client, log_in, services):
    before = log_in()["access_token"]
    services.api_keys.rotate_signing_key()
    after = log_in()["access_token"]
    kids = {jwt.get_unverified_header(token)["kid"] for token in (before, after)}
    assert len(kids) == 2
    assert [whoami(client, token).status_code for token in (before, after)] == [200, 200]
