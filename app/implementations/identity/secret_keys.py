"""HS256's keys: one secret that signs and verifies, made at the first start unless it is a setting."""

import os
import secrets
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from app.core.errors import Conflict, Unavailable
from app.implementations.identity.key_files import make_key_file, new_key_file
from app.implementations.identity.tokens import Key, SigningKeys

ALGORITHM = "HS256"
KEY_BYTES = 32  # RFC 7518 § 3.2: as long as HS256's output
RETIRED_SECONDS = 86_400  # that a key still verifies: no access token lives longer (config: token_seconds)


class SecretKeys(SigningKeys):
    """Signs with ``secret_key``, else with the key in ``key_file``, which the first process to start makes.

    ``old_secret_keys`` only verify, as do those that ``rotate`` has put away beside ``key_file``.
    """

    def __init__(self, secret_key: str | None, key_file: Path, old_secret_keys: Sequence[str] = ()) -> None:
        self._file = None if secret_key else key_file
        self._old = [key.encode() for key in old_secret_keys]
        self._seen: tuple[int, int] | None = None
        if secret_key:
            self._use(secret_key.encode(), self._old)
        else:
            if not key_file.exists():
                make_key_file(key_file, secrets.token_bytes(KEY_BYTES))
            self._look()

    def signing(self) -> Key:
        self._look()
        return self._keys[self._current]

    def verifying(self, kid: str) -> Key | None:
        if kid not in self._keys:  # another process may have rotated
            self._look()
        return self._keys.get(kid)

    def public(self) -> Sequence[Mapping[str, Any]]:
        return ()

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
        new_key_file(self._file, secrets.token_bytes(KEY_BYTES)).replace(self._file)
        self._look()
        return self._current

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
        self._keys = {_kid(one): Key(_kid(one), ALGORITHM, one, one) for one in (*old, key)}
        self._current = _kid(key)


def _kid(key: bytes) -> str:
    return sha256(b"kid" + key).hexdigest()[:16]


def _retired(key_file: Path) -> list[Path]:
    return list(key_file.parent.glob(f"{key_file.name}.*"))
