"""Access tokens: JSON Web Tokens (RFC 7519), signed with HS256."""

import os
import secrets
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt

from app.core.errors import Unauthorized, Unavailable
from app.core.interfaces.operations import TokenIssuer

ISSUER = "llm-finetuning"
AUDIENCE = "llm-finetuning-api"
KEY_BYTES = 32  # RFC 7518 § 3.2: as long as HS256's output


class JwtIssuer(TokenIssuer):
    """Signs with ``secret_key``, else with the key in ``key_file``, which the first process to start makes."""

    def __init__(self, secret_key: str | None, key_file: Path) -> None:
        self._key = secret_key.encode() if secret_key else _key_of(key_file)

    def issue(self, claims: Mapping[str, Any], seconds: int) -> str:
        now = int(time.time())
        registered = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + seconds,
            "jti": secrets.token_hex(16),
        }
        return jwt.encode({**claims, **registered}, self._key, algorithm="HS256")

    def verify(self, token: str) -> Mapping[str, Any]:
        try:
            # PyJWT accepts a token without these claims unless told to require them.
            return jwt.decode(
                token,
                self._key,
                algorithms=["HS256"],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require": ["exp", "iss", "aud", "jti", "iat", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthorized("the access token has expired: get a new one", code="token_expired") from None
        except jwt.InvalidTokenError:
            raise Unauthorized("the access token is not valid", code="token_invalid") from None


def _key_of(key_file: Path) -> bytes:
    if not key_file.exists():
        _make(key_file)
    key = key_file.read_bytes()
    if len(key) < KEY_BYTES:
        raise Unavailable(f"{key_file.name} in the instance folder is damaged: remove it and start again")
    return key


def _make(key_file: Path) -> None:
    """Whole or not at all, and never over another's: of two processes that start at once both read one key."""
    key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=key_file.parent, prefix=".secret_key.")  # mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        key_file.hardlink_to(temporary)  # a rename would replace the key that another has already read
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
