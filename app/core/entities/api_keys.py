"""API keys: how they look, and what is known of one.

A key is ``llmft_``, 40 random letters and digits (238 bits), and six that are their CRC-32: a scanner that finds
one in a repository knows what it is, and a mistyped one is refused without a look into the database. It is random,
so SHA-256 is hash enough: there is nothing to guess.
"""

import re
import secrets
import string
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from app.core.entities.identity import Scope

NAME_LENGTHS = range(1, 101)
MOST_DAYS = 3650

PREFIX = "llmft_"
_ALPHABET = string.digits + string.ascii_letters
_SHAPE = re.compile(rf"({PREFIX}[0-9A-Za-z]{{40}})([0-9A-Za-z]{{6}})", re.ASCII)
_HINT_LENGTH = len(PREFIX) + 4


@dataclass(frozen=True, slots=True)
class ApiKey:
    """``scopes`` empty: all. ``hint`` is its beginning, by which its owner knows it."""

    id: str
    project_id: str
    user_id: str
    name: str
    hash: str
    hint: str
    scopes: Sequence[Scope]
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    def is_live(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def random_text(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def new_key_text() -> str:
    body = PREFIX + random_text(40)
    return body + _checksum(body)


def is_key_text(text: str) -> bool:
    match = _SHAPE.fullmatch(text)
    return match is not None and _checksum(match[1]) == match[2]


def hint_of(text: str) -> str:
    return text[:_HINT_LENGTH] + "…"


def digest_of(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _checksum(body: str) -> str:
    number, letters = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, len(_ALPHABET))
        letters = _ALPHABET[digit] + letters
    return letters
