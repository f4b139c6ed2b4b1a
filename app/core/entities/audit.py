"""Who did what to which."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Outcome(StrEnum):
    DONE = "done"
    REFUSED = "refused"  # statuses of 400 and more
    FAILED = "failed"  # of 500 and more

    @property
    def statuses(self) -> range:
        return {"done": range(400), "refused": range(400, 500), "failed": range(500, 1000)}[self.value]


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change, or one that was refused. ``project_id`` is None where it is no project's: a failed log-in."""

    project_id: str | None
    created_at: datetime
    actor: str  # a username, the account of a log-in, or cli
    user_id: str | None
    key_id: str | None
    address: str
    action: str  # noun.verb: the route's endpoint
    kind: str  # of the object
    object_id: str
    status: int
    request_id: str
    number: int = 0  # counted by the store


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What is None, or empty, lets all pass. ``actor`` is a name or an id; ``action`` a noun or noun.verb."""

    since: datetime | None = None
    until: datetime | None = None  # excluded
    actor: str | None = None
    action: str | None = None
    object_id: str | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class AuditPage:
    """``next`` is the ``after`` of the page that follows, None on the last."""

    entries: Sequence[AuditEntry]
    next: int | None
