"""An issuer on loopback, whose keys rotate: what is taken of it, what is refused, and how often it is asked."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.core.errors import Unauthorized, Unavailable
from app.implementations.identity.external_issuer import BETWEEN_SECONDS, FRESH_SECONDS, USABLE_SECONDS, OidcIssuer
from tests.unit.api.test_public_keys import by_hand

RSA_KEYS = [rsa.generate_private_key(65537, 2048) for _ in range(2)]


class Issuer:
    """Serves its discovery and its keys, and counts how often the keys were asked for."""

    def __init__(self):
        self.keys = {"one": RSA_KEYS[0]}
        self.fetches = 0
        self.discovery = {}
        self.jwks = None  # instead of the keys
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                if self.path == "/realm/.well-known/openid-configuration":
                    body = {"issuer": outer.url, "jwks_uri": f"{outer.url}/keys", **outer.discovery}
                else:
                    outer.fetches += 1
                    body = outer.jwks if outer.jwks is not None else {"keys": outer.public()}
                self.send_response(outer.status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/realm"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def public(self):
        return [{**jwk_of(key), "kid": kid, "use": "sig"} for kid, key in self.keys.items()]

    def sign(self, kid="one", algorithm="RS256", key=None, **changes):
        now = int(time.time())
        claims = {"iss": self.url, "aud": "the-service", "sub": "00u1", "iat": now, "exp": now + 60, **changes}
        sound = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(sound, key or self.keys.get(kid, RSA_KEYS[0]), algorithm, headers={"kid": kid})


def jwk_of(key):
    public = key.public_key()
    algorithms = jwt.algorithms
    for kind, algorithm in (
        (rsa.RSAPrivateKey, algorithms.RSAAlgorithm),
        (ec.EllipticCurvePrivateKey, algorithms.ECAlgorithm),
    ):
        if isinstance(key, kind):
            return algorithm.to_jwk(public, as_dict=True)
    return algorithms.OKPAlgorithm.to_jwk(public, as_dict=True)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def issuer():
    made = Issuer()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def oidc(issuer, clock):
    return OidcIssuer(issuer.url, "the-service", clock)


def code_of(oidc, token):
    with pytest.raises((Unauthorized, Unavailable)) as caught:
        oidc.verify(token)
    return caught.value.code


def test_a_sound_token_costs_one_fetch_for_all_of_them(issuer, oidc):
    for number in range(5):
        token = issuer.sign(sub=f"user-{number}", aud=["another", "the-service"])
        assert oidc.has_issued(token)
        assert oidc.verify(token)["sub"] == f"user-{number}"
    assert issuer.fetches == 1


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [("ES256", ec.generate_private_key(ec.SECP256R1())), ("EdDSA", ed25519.Ed25519PrivateKey.generate())],
)
def test_other_algorithms_of_public_keys(issuer, oidc, algorithm, key):
    issuer.keys = {"one": key}
    assert oidc.verify(issuer.sign(algorithm=algorithm))["sub"] == "00u1"


def test_forged_tokens(issuer, oidc, monkeypatch):
    own, other = RSA_KEYS
    pem = own.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    now = int(time.time())
    monkeypatch.setattr(
        "tests.unit.api.test_public_keys.claims",
        lambda: {"iss": issuer.url, "aud": "the-service", "sub": "x", "iat": now, "exp": now + 60},
    )
    forged = {
        "the public key as a secret": by_hand({"alg": "HS256", "kid": "one"}, pem),
        "alg none": jwt.encode({"iss": issuer.url, "sub": "x"}, None, "none", headers={"kid": "one"}),
        "another algorithm of the key": issuer.sign(algorithm="PS256"),
        "another's key": issuer.sign(key=other),
        "another audience": issuer.sign(aud="elsewhere"),
        "no audience": issuer.sign(aud=None),
        "another issuer": issuer.sign(iss="https://elsewhere.example"),
        "no end": issuer.sign(exp=None),
        "no beginning": issuer.sign(iat=None),
        "no subject": issuer.sign(sub=None),
        "from the future": issuer.sign(iat=now + 3600),
        "an unknown key": issuer.sign(kid="../one", key=own),
    }
    assert {name: code_of(oidc, token) for name, token in forged.items()} == dict.fromkeys(forged, "token_invalid")
    assert code_of(oidc, issuer.sign(exp=now - 60)) == "token_expired"
    assert oidc.verify(issuer.sign())


def test_whose_a_token_says_it_is(issuer, oidc):
    assert not oidc.has_issued(issuer.sign(iss=issuer.url + "/"))
    assert not oidc.has_issued("hello")
    assert not oidc.has_issued("x" * 100_000)


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits")  # to sign with it
def test_keys_that_are_not_used(issuer, oidc):
    secret = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "secret", "alg": "HS256"}
    weak = rsa.generate_private_key(65537, 1024)
    issuer.keys = {"weak": weak, "one": RSA_KEYS[0]}
    issuer.jwks = {"keys": [secret, {**jwk_of(RSA_KEYS[1]), "kid": "enc", "use": "enc"}, 5, {}, *issuer.public()]}
    token = jwt.encode(
        {"iss": issuer.url}, "secret-secret-secret-secret-secret", "HS256", headers={"kid": "secret"}
    )
    assert code_of(oidc, token) == "token_invalid"
    assert code_of(oidc, issuer.sign("enc", key=RSA_KEYS[1])) == "token_invalid"
    assert code_of(oidc, issuer.sign("weak")) == "token_invalid"
    assert oidc.verify(issuer.sign())


def test_a_flood_of_unknown_keys_is_one_fetch_a_minute(issuer, oidc, clock):
    oidc.verify(issuer.sign())
    clock.now += BETWEEN_SECONDS
    for number in range(50):
        assert code_of(oidc, issuer.sign(kid=f"unknown-{number}")) == "token_invalid"
    assert issuer.fetches == 2
    clock.now += BETWEEN_SECONDS
    code_of(oidc, issuer.sign(kid="unknown"))
    assert issuer.fetches == 3
    assert oidc.verify(issuer.sign())


def test_a_new_key_is_found_and_one_that_was_withdrawn_is_not_kept(issuer, oidc, clock):
    before = issuer.sign()
    oidc.verify(before)
    issuer.keys["two"] = RSA_KEYS[1]
    clock.now += BETWEEN_SECONDS
    assert oidc.verify(issuer.sign("two"))
    del issuer.keys["one"]
    assert oidc.verify(before)
    clock.now += FRESH_SECONDS + 1
    assert code_of(oidc, before) == "token_invalid"
    assert oidc.verify(issuer.sign("two"))


def test_an_issuer_that_is_away(issuer, oidc, clock):
    issuer.status = 500
    assert code_of(oidc, issuer.sign()) == "issuer_unavailable"
    issuer.status = 200
    clock.now += BETWEEN_SECONDS
    assert oidc.verify(issuer.sign())
    issuer.status = 500
    clock.now += FRESH_SECONDS + 1  # its keys go on for an hour
    assert oidc.verify(issuer.sign())
    assert code_of(oidc, issuer.sign("two", key=RSA_KEYS[1])) == "issuer_unavailable"
    clock.now += USABLE_SECONDS
    assert code_of(oidc, issuer.sign()) == "issuer_unavailable"


@pytest.mark.parametrize(
    "changes",
    [
        {"discovery": {"issuer": "http://127.0.0.1/another"}},
        {"discovery": {"jwks_uri": "file:///etc/passwd"}},
        {"discovery": {"jwks_uri": None}},
        {"discovery": {"jwks_uri": "http://"}},
        {"status": 302},
        {"jwks": b"not json"},
        {"jwks": b"[]"},
        {"jwks": b" " * (1024**2 + 1)},
    ],
)
def test_an_answer_that_is_not_what_it_should_be(issuer, oidc, changes):
    for name, value in changes.items():
        setattr(issuer, name, value)
    assert code_of(oidc, issuer.sign()) == "issuer_unavailable"


def test_nobody_waits_while_one_fetches(issuer, oidc):
    oidc._tried_at = 1000.0
    with oidc._fetching:
        assert code_of(oidc, issuer.sign()) == "issuer_unavailable"
    assert issuer.fetches == 0
