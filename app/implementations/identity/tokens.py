"""Access tokens: JSON Web Tokens (RFC 7519), signed with HS256."""

import os
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import jwt

from app.core.errors import Conflict, Unauthorized, Unavailable
from app.core.interfaces.operations import TokenIssuer

ISSUER = "llm-finetuning"
AUDIENCE = "llm-finetuning-api"
KEY_BYTES = 32  # RFC 7518 § 3.2: as long as HS256's output
LONGEST_TOKEN = 4096  # ours have some 500 characters
RETIRED_SECONDS = 86_400  # that a key still verifies: no access token lives longer (config: token_seconds)


class JwtIssuer(TokenIssuer):
    """Signs with ``secret_key``, else with the key in ``key_file``, which the first process to start makes.

    The header's ``kid`` names the key. ``old_secret_keys`` only verify, as do those that ``rotate`` has put away
    beside ``key_file``.
    """

    def __init__(self, secret_key: str | None, key_file: Path, old_secret_keys: Sequence[str] = ()) -> None:
        self._file = None if secret_key else key_file
        self._old = [key.encode() for key in old_secret_keys]
        self._seen: tuple[int, int] | None = None
        if secret_key:
            self._use(secret_key.encode(), self._old)
        else:
            if not key_file.exists():
                _make(key_file)
            self._look()

    def issue(self, claims: Mapping[str, Any], seconds: int) -> str:
        self._look()
        now = int(time.time())
        registered = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + seconds,
            "jti": secrets.token_hex(16),
        }
        kid = self._current
        return jwt.encode({**claims, **registered}, self._keys[kid], algorithm="HS256", headers={"kid": kid})

    def verify(self, token: str) -> Mapping[str, Any]:
        try:
            # PyJWT accepts a token without these claims unless told to require them.
            return jwt.decode(
                token,
                self._key_of(token),
                algorithms=["HS256"],
                audience=AUDIENCE,
                issuer=ISSUER,
                options={"require": ["exp", "iss", "aud", "jti", "iat", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthorized("the access token has expired: get a new one", code="token_expired") from None
        except jwt.InvalidTokenError:
            raise Unauthorized("the access token is not valid", code="token_invalid") from None

    def rotate(self) -> str:
        if self._file is None:
            message = "SECRET_KEY is set: set it to a new one, and the one until now in OLD_SECRET_KEYS"
            raise Conflict(message, code="key_is_configured")
        self._look()
        retired = self._file.with_name(f"{self._file.name}.{self._current}")
        if not retired.exists():
            retired.hardlink_to(self._file)
        os.utime(retired)  # it is retired from now on
        for old in _retired(self._file):
            if old.stat().st_mtime < time.time() - RETIRED_SECONDS:
                old.unlink(missing_ok=True)
        _new(self._file).replace(self._file)
        self._look()
        return self._current

    def _key_of(self, token: str) -> bytes:
        if len(token) > LONGEST_TOKEN:
            raise jwt.InvalidTokenError
        kid = str(jwt.get_unverified_header(token).get("kid"))
        if kid not in self._keys:  # another process may have rotated
            self._look()
        try:
            return self._keys[kid]
        except KeyError:
            raise jwt.InvalidTokenError from None

    def _look(self) -> None:
        """Read the key file if it is another than it was."""
        if self._file is None:
            return
        found = self._file.stat()
        if self._seen != (found.st_ino, found.st_mtime_ns):
            key = self._file.read_bytes()
            if len(key) < KEY_BYTES:
                raise Unavailable(
                    f"{self._file.name} in the instance folder is damaged: remove it and start again"
                )
            oldest = time.time() - RETIRED_SECONDS
            retired = [path.read_bytes() for path in _retired(self._file) if path.stat().st_mtime >= oldest]
            self._use(key, [*retired, *self._old])
            self._seen = (found.st_ino, found.st_mtime_ns)

    def _use(self, key: bytes, old: Sequence[bytes]) -> None:
        self._keys = {_kid(one): one for one in (*old, key)}
        self._current = _kid(key)


def _kid(key: bytes) -> str:
    return sha256(b"kid" + key).hexdigest()[:16]


def _retired(key_file: Path) -> list[Path]:
    return list(key_file.parent.glob(f"{key_file.name}.*"))


def _make(key_file: Path) -> None:
    """Whole or not at all, and never over another's: of two processes that start at once both read one key."""
    key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = _new(key_file)
    try:
        key_file.hardlink_to(temporary)  # a rename would replace the key that another has already read
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _new(key_file: Path) -> Path:
    """A file beside it with a new key."""
    descriptor, name = tempfile.mkstemp(dir=key_file.parent, prefix=f".{key_file.name}.")  # mode 0600
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    return Path(name)
