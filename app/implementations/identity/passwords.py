"""Password hashes: Argon2id (RFC 9106)."""

from argon2 import PasswordHasher as Argon2
from argon2.exceptions import InvalidHashError, VerificationError

from app.core.interfaces.operations import PasswordHasher


class Argon2Hasher(PasswordHasher):
    """19 MiB, two passes, one lane: OWASP's least for Argon2id.

    RFC 9106's 64 MiB would let sixteen log-ins at once take a gigabyte of the web process.
    """

    def __init__(self) -> None:
        self._argon2 = Argon2(time_cost=2, memory_cost=19 * 1024, parallelism=1)

    def hash(self, password: str) -> str:
        return self._argon2.hash(password)

    def matches(self, password: str, password_hash: str) -> bool:
        try:
            return self._argon2.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False
