"""Tokens of an OpenID Connect issuer that the service trusts: the company's own log-in."""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from app.core.errors import Unauthorized, Unavailable
from app.core.interfaces.operations import ExternalIssuer

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA")  # a public key is no secret: no HS
DISCOVERY = "/.well-known/openid-configuration"  # OpenID Connect Discovery 1.0 § 4
LEAST_RSA_BITS = 2048
LONGEST_TOKEN = 8192
LEEWAY_SECONDS = 30  # between its clock and ours
FETCH_SECONDS = 5.0
MOST_BYTES = 1024**2
FRESH_SECONDS = 600  # after which its keys are fetched anew: one that it has withdrawn is good for no longer
USABLE_SECONDS = 3600  # that they are used while it does not answer
BETWEEN_SECONDS = 60  # two fetches, whatever the tokens that come name

log = logging.getLogger(__name__)


class OidcIssuer(ExternalIssuer):
    """``url`` is what ``iss`` says and where discovery begins. Safe to call from many threads.

    One thread at a time fetches; the others go on with what is known, or answer 503, and do not wait for it.
    """

    def __init__(self, url: str, audience: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._audience = audience
        self._clock = clock
        self._http = httpx.Client(timeout=FETCH_SECONDS, follow_redirects=False)
        self._fetching = threading.Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")

    @property
    def url(self) -> str:
        return self._url

    def has_issued(self, token: str) -> bool:
        if len(token) > LONGEST_TOKEN:
            return False
        try:
            claims = jwt.decode(token, options={"verify_signature": False})
        except jwt.InvalidTokenError:
            return False
        return claims.get("iss") == self._url

    def verify(self, token: str) -> Mapping[str, Any]:
        try:
            # The key is bound to its own algorithm, and PyJWT compares the header's with that and with these.
            return jwt.decode(
                token,
                self._key(jwt.get_unverified_header(token).get("kid")),
                algorithms=ALGORITHMS,
                audience=self._audience,
                issuer=self._url,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "iat", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthorized("the access token has expired: get a new one", code="token_expired") from None
        except jwt.InvalidTokenError:
            raise Unauthorized("the access token is not valid", code="token_invalid") from None

    def _key(self, kid: str | None) -> jwt.PyJWK:
        if kid is None:
            raise jwt.InvalidTokenError
        now = self._clock()
        wanted = kid not in self._keys or now - self._fetched_at > FRESH_SECONDS
        if wanted and now - self._tried_at >= BETWEEN_SECONDS and self._fetching.acquire(blocking=False):
            try:
                self._tried_at = now
                self._keys = self._fetch()
                self._fetched_at = now
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                log.warning("the keys of %s could not be fetched: %s", self._url, error)
            finally:
                self._fetching.release()
        is_away = self._fetched_at < self._tried_at  # at the last try, or it is being tried
        key = self._keys.get(kid)
        if (key is None and is_away) or now - self._fetched_at > USABLE_SECONDS:
            message = "the issuer of this token does not show its keys: try again, or log in here"
            raise Unavailable(message, code="issuer_unavailable", retry_after=BETWEEN_SECONDS)
        if key is None:
            raise jwt.InvalidTokenError
        return key

    def _fetch(self) -> dict[str, jwt.PyJWK]:
        """Two requests. ``ValueError`` for an answer that is not what it should be."""
        document = self._get(self._url.rstrip("/") + DISCOVERY)
        if document.get("issuer") != self._url:  # Discovery § 4.3
            raise ValueError("its discovery names another issuer")
        address = document.get("jwks_uri")
        if not isinstance(address, str) or urlsplit(address).scheme not in ("https", urlsplit(self._url).scheme):
            raise ValueError("its discovery names no jwks_uri of https")
        listed = self._get(address).get("keys")
        found = map(_usable, listed if isinstance(listed, list) else [])
        return {key.key_id: key for key in found if key is not None and key.key_id is not None}

    def _get(self, address: str) -> Mapping[str, Any]:
        until = time.monotonic() + FETCH_SECONDS
        body = b""
        with self._http.stream("GET", address, headers={"Accept-Encoding": "identity"}) as answer:
            if answer.status_code != 200:
                raise ValueError(f"{address} answered {answer.status_code}")
            for piece in answer.iter_raw():
                body += piece
                if len(body) > MOST_BYTES or time.monotonic() > until:
                    raise ValueError(f"{address} is too large or too slow")
        found = json.loads(body)
        if not isinstance(found, dict):
            raise ValueError(f"{address} is no JSON object")
        return found


def _usable(jwk: Any) -> jwt.PyJWK | None:
    """None for a secret, one to encrypt with, a weak one, one of an algorithm that is not taken."""
    try:
        if jwk.get("use", "sig") != "sig":
            return None
        key = jwt.PyJWK(jwk)
    except (jwt.PyJWTError, AttributeError, KeyError, TypeError, ValueError):
        return None
    if key.algorithm_name not in ALGORITHMS:
        return None
    return None if isinstance(key.key, RSAPublicKey) and key.key.key_size < LEAST_RSA_BITS else key
