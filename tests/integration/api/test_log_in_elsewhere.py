"""The service as its settings make it: tokens of an issuer on loopback, and a signing key in a PEM file."""

import subprocess

import jwt
import pytest

from app import create_app
from app.bootstrap import prepare_instance
from app.cli import init_cli
from app.core.errors import Invalid
from app.extensions import db
from tests.running_service import PASSWORD
from tests.unit.implementations.identity.test_external_issuer import Issuer


@pytest.fixture
def issuer():
    made = Issuer()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def start(settings):
    """An app with those settings."""
    started = []

    def start(**changes):
        app = create_app(settings.model_copy(update={"admin_password": None, **changes}))
        init_cli(app)
        started.append(app)
        prepare_instance(app)
        return app

    yield start
    for app in started:
        with app.app_context():
            db.engine.dispose()


def whoami(app, token):
    return app.test_client().get("/api/v1/auth/whoami", headers={"Authorization": f"Bearer {token}"})


def test_who_is_linked_comes_in_with_the_issuers_token(start, issuer):
    app = start(oidc_issuer=issuer.url, oidc_audience="the-service")
    made = app.test_cli_runner().invoke(
        args=["users", "create", "alice", "--role", "developer", "--subject", "00u1"]
    )
    assert made.exit_code == 0, made.output
    shown = whoami(app, issuer.sign()).json
    assert (shown["username"], shown["role"]) == ("alice", "developer")
    assert whoami(app, issuer.sign(sub="00u2")).json["code"] == "user_not_linked"
    assert whoami(app, issuer.sign(aud="elsewhere")).json["code"] == "token_invalid"
    assert issuer.fetches == 1


def test_without_that_setting_its_token_is_nobodys(start, issuer):
    assert whoami(start(), issuer.sign()).json["code"] == "token_invalid"
    assert issuer.fetches == 0


def test_a_key_of_openssl_signs_and_the_service_shows_how_to_verify(start, tmp_path):
    key = tmp_path / "signing.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(key)], check=True)
    app = start(signing_algorithm="EdDSA", signing_key_file=key)
    with app.app_context():
        app.extensions["services"].accounts.set_password("admin", PASSWORD)
    client = app.test_client()
    token = client.post("/api/v1/auth/token", json={"username": "admin", "password": PASSWORD}).json[
        "access_token"
    ]
    (shown,) = client.get("/.well-known/jwks.json").json["keys"]
    assert jwt.decode(token, jwt.PyJWK(shown), ["EdDSA"], audience="llm-finetuning-api")["project"] == "default"
    assert whoami(app, token).json["username"] == "admin"


def test_a_weak_key_stops_the_start(start, tmp_path):
    key = tmp_path / "weak.pem"
    command = ["openssl", "genrsa", "-out", str(key), "1024"]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(Invalid, match="signing_key_file: an RSA key of 1024 bits is weak"):
        start(signing_algorithm="RS256", signing_key_file=key)
