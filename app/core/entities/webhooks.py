"""Webhooks: what a project is told, and how it is signed (Standard Webhooks 1.0)."""

import hmac
import json
import secrets
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.core.entities.jobs import JobState

SECRET_PREFIX = "whsec_"  # noqa: S105
SECRET_BYTES = 32
PING = "webhook.ping"
# Between one attempt and the next: eight attempts in 32 hours.
DELAYS = (
    *(timedelta(seconds=30), timedelta(minutes=5), timedelta(minutes=30)),
    *(timedelta(hours=hours) for hours in (2, 5, 10, 14)),
)

KEPT_FOR = timedelta(days=30)  # deliveries that have arrived or were given up


class WebhookEvent(StrEnum):
    """The ends of fine-tuning jobs, by OpenAI's names: what an endpoint is told unless it asks for others."""

    SUCCEEDED = "fine_tuning.job.succeeded"
    FAILED = "fine_tuning.job.failed"
    CANCELLED = "fine_tuning.job.cancelled"


ENDS = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


def known_events(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return every event that an endpoint may ask for, where jobs of these kinds run."""
    return (*WebhookEvent, *(f"{kind}.job.{state}" for kind in kinds for state in ENDS))


def events_of_end(kind: str, state: JobState) -> tuple[str, ...]:
    """Return the names of a job's end. That of a fine-tuning job has two: OpenAI's clients know the first."""
    own = f"{kind}.job.{state}"
    return (f"fine_tuning.job.{state}", own) if kind == "train" else (own,)


@dataclass(frozen=True, slots=True)
class Webhook:
    """An endpoint of a project. Its secrets are sealed (``SecretBox``); the old one signs too for a while."""

    id: str
    project_id: str
    url: str
    events: Sequence[str]
    enabled: bool
    secret: str
    created_by: str
    created_at: datetime
    old_secret: str | None = None
    old_secret_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one endpoint. Without ``next_attempt_at`` it has arrived, or was given up."""

    webhook_id: str
    event_id: str
    project_id: str
    type: str
    body: str
    created_at: datetime
    next_attempt_at: datetime | None
    attempts: int = 0
    last_attempt_at: datetime | None = None
    status: int | None = None  # HTTP's, of the last attempt
    error: str | None = None  # why that had none
    delivered_at: datetime | None = None

    @property
    def state(self) -> str:
        if self.delivered_at is not None:
            return "delivered"
        return "failed" if self.next_attempt_at is None else "pending"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one attempt: a status, or an error."""

    status: int | None = None
    error: str | None = None

    @property
    def arrived(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


def new_secret() -> str:
    return SECRET_PREFIX + b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def new_event_id() -> str:
    return f"evt_{secrets.token_hex(12)}"


def new_delivery(webhook_id: str, project_id: str, event_id: str, kind: str, about: str, at: datetime) -> Delivery:
    """``about`` is the id of what it is about. The body is written once: each attempt sends the same bytes."""
    event = {
        "id": event_id,
        "object": "event",
        "created_at": int(at.timestamp()),
        "type": kind,
        "data": {"id": about},
    }
    body = json.dumps(event, separators=(",", ":"))
    return Delivery(webhook_id, event_id, project_id, kind, body, at, next_attempt_at=at)


def signature(secrets_in_use: Sequence[str], event_id: str, timestamp: int, body: str) -> str:
    """The header ``webhook-signature``: one for each secret, with a space between them."""
    signed = f"{event_id}.{timestamp}.{body}".encode()
    keys = [b64decode(secret.removeprefix(SECRET_PREFIX)) for secret in secrets_in_use]
    return " ".join("v1," + b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """``next`` is the ``after`` of the page that follows, None on the last."""

    deliveries: Sequence[Delivery]
    next: str | None
