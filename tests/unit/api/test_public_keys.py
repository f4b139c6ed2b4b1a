"""The service with a key of RS256: what it shows of it, and the tokens that such a key invites to forge."""

import base64
import hashlib
import hmac
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from app.implementations.identity.pem_keys import PemKeys
from app.implementations.identity.secret_keys import SecretKeys
from app.implementations.identity.tokens import JwtIssuer
from tests.unit.api.test_authentication import claims


@pytest.fixture(scope="module")
def rsa_key():
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def others_key():
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def quiet_settings(quiet_settings, rsa_key):
    """With the key, in the place of a secret."""
    path = quiet_settings.instance_dir / "key.pem"
    path.write_bytes(rsa_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return quiet_settings.model_copy(update={"signing_algorithm": "RS256", "signing_key_file": path})


@pytest.fixture
def tokens(quiet_settings):
    return JwtIssuer(PemKeys("RS256", quiet_settings.signing_key_file))


@pytest.fixture
def kid(tokens):
    return tokens.public_keys()[0]["kid"]


def by_hand(header, key):
    """HS256 with any bytes as the secret: PyJWT itself refuses to sign with a public key."""

    def text(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    signed = text(json.dumps(header).encode()) + b"." + text(json.dumps(claims()).encode())
    return (signed + b"." + text(hmac.digest(key, signed, hashlib.sha256))).decode()


FORGED = {
    "alg none": lambda own, other, kid: jwt.encode(claims(), None, "none", headers={"kid": kid}),
    "PEM as secret": lambda own, other, kid: by_hand(
        {"alg": "HS256", "kid": kid},
        own.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    ),
    "DER as secret": lambda own, other, kid: by_hand(
        {"alg": "HS256", "kid": kid},
        own.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    ),
    "another algorithm of the same key": lambda own, other, kid: signed(own, "PS256", kid=kid),
    "a longer hash": lambda own, other, kid: signed(own, "RS512", kid=kid),
    "another's key": lambda own, other, kid: signed(other, kid=kid),
    "no kid": lambda own, other, kid: signed(own),
    "a path": lambda own, other, kid: signed(own, kid="../key.pem"),
    "a file": lambda own, other, kid: signed(other, kid="/dev/null"),
    "SQL": lambda own, other, kid: signed(other, kid="x' OR '1'='1"),
    "jwk": lambda own, other, kid: signed(
        other, kid="other", jwk=jwt.algorithms.RSAAlgorithm.to_jwk(other.public_key(), as_dict=True)
    ),
    "jwk under the own name": lambda own, other, kid: signed(
        other, kid=kid, jwk=jwt.algorithms.RSAAlgorithm.to_jwk(other.public_key(), as_dict=True)
    ),
    "jku": lambda own, other, kid: signed(other, kid="other", jku="http://127.0.0.1:9/jwks.json"),
    "x5u": lambda own, other, kid: signed(other, kid="other", x5u="http://127.0.0.1:9/chain.pem"),
    "crit": lambda own, other, kid: signed(own, kid=kid, crit=["exp"]),
}


def signed(key, algorithm="RS256", **headers):
    return jwt.encode(claims(), key, algorithm, headers=headers)


def whoami(client, token):
    return client.get("/api/v1/auth/whoami", headers={"Authorization": f"Bearer {token}"})


def test_the_sound_token_that_the_forged_ones_differ_from(client, bearer, rsa_key, kid):
    bearer()
    assert whoami(client, signed(rsa_key, kid=kid)).status_code == 200


@pytest.mark.parametrize("name", FORGED)
def test_forged_tokens(client, bearer, rsa_key, others_key, kid, name):
    bearer()
    answer = whoami(client, FORGED[name](rsa_key, others_key, kid))
    assert (answer.status_code, answer.json["code"]) == (401, "token_invalid")


def test_the_secret_of_before_signs_nothing(client, bearer, settings):
    bearer()
    secret = SecretKeys(None, settings.instance_dir / "secret_key").signing()
    token = jwt.encode(claims(), secret.private, "HS256", headers={"kid": secret.kid})
    assert whoami(client, token).json["code"] == "token_invalid"


def test_anybody_may_have_the_public_key_and_no_more(client, bearer, kid, services):
    answer = client.get("/.well-known/jwks.json")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "public, max-age=300")
    (shown,) = answer.json["keys"]
    assert (shown["kid"], shown["alg"], shown["use"]) == (kid, "RS256", "sig")
    assert shown.keys() == {"kty", "n", "e", "kid", "use", "alg"}
    token = bearer()["Authorization"].removeprefix("Bearer ")
    assert jwt.decode(token, jwt.PyJWK(shown), ["RS256"], audience="llm-finetuning-api")


class TestWithASecret:
    @pytest.fixture
    def quiet_settings(self, quiet_settings):
        return quiet_settings.model_copy(update={"signing_algorithm": "HS256", "signing_key_file": None})

    def test_there_is_no_public_key(self, client):
        assert client.get("/.well-known/jwks.json").json == {"keys": []}
