"""Requests that may be sent again without being done again."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """``body`` is None where it had a secret, which is not kept."""

    status: int
    headers: Mapping[str, str]
    body: str | None


@dataclass(frozen=True, slots=True)
class KeptRequest:
    """Without an ``answer`` it is being done, by whoever has the ``holder``. Once expired, it was never sent."""

    id: str  # of who sent it where under which key
    project_id: str
    fingerprint: str  # of its body
    holder: str
    expires_at: datetime
    answer: KeptAnswer | None = None
