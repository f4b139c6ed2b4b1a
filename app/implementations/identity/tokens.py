"""Access tokens: JSON Web Tokens (RFC 7519)."""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from app.core.errors import Unauthorized
from app.core.interfaces.operations import TokenIssuer

ISSUER = "llm-finetuning"
AUDIENCE = "llm-finetuning-api"
LONGEST_TOKEN = 4096  # ours have some 500 characters, 800 with RS256


@dataclass(frozen=True, slots=True)
class Key:
    """``algorithm`` is the only one that it is used with. ``private`` is None where it verifies alone."""

    kid: str
    algorithm: str
    private: Any
    public: Any


class SigningKeys(ABC):
    """The service's own, by the ``kid`` that a token's header names."""

    @abstractmethod
    def signing(self) -> Key: ...

    @abstractmethod
    def verifying(self, kid: str) -> Key | None: ...

    @abstractmethod
    def public(self) -> Sequence[Mapping[str, Any]]:
        """Those that others may verify with, as JWKs (RFC 7517)."""

    @abstractmethod
    def rotate(self) -> str:
        """As ``TokenIssuer.rotate``."""


class JwtIssuer(TokenIssuer):
    """Of a token's header ``kid`` alone is used, to look the key up: never a key, an address or an algorithm."""

    def __init__(self, keys: SigningKeys) -> None:
        self._keys = keys

    def issue(self, claims: Mapping[str, Any], seconds: int) -> str:
        now = int(time.time())
        registered = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + seconds,
            "jti": secrets.token_hex(16),
        }
        key = self._keys.signing()
        return jwt.encode({**claims, **registered}, key.private, key.algorithm, headers={"kid": key.kid})

    def verify(self, token: str) -> Mapping[str, Any]:
        try:
            key = self._key_of(token)
            # PyJWT accepts a token without these claims unless told to require them.
            return jwt.decode(
                token,
                key.public,
                algorithms=[key.algorithm],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require": ["exp", "iss", "aud", "jti", "iat", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthorized("the access token has expired: get a new one", code="token_expired") from None
        except jwt.InvalidTokenError:
            raise Unauthorized("the access token is not valid", code="token_invalid") from None

    def rotate(self) -> str:
        return self._keys.rotate()

    def public_keys(self) -> Sequence[Mapping[str, Any]]:
        return self._keys.public()

    def _key_of(self, token: str) -> Key:
        if len(token) > LONGEST_TOKEN:
            raise jwt.InvalidTokenError
        key = self._keys.verifying(str(jwt.get_unverified_header(token).get("kid")))
        if key is None:
            raise jwt.InvalidTokenError
        return key
