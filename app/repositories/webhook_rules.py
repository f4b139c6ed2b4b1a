"""What the repository of webhooks decides, over SQL and in memory alike."""

from collections.abc import Mapping
from datetime import datetime

from app.core.entities.webhooks import DELAYS, Delivery, Outcome
from app.core.errors import Conflict, Fault, Invalid


def check_room(count: int, most: int) -> None:
    if count >= most:
        raise Conflict(f"a project has at most {most} webhooks: remove one first", code="too_many_webhooks")


def unknown_page(after: str) -> Invalid:
    fault = Fault("after", "unknown_event", "must be the event of the last delivery of the page before")
    return Invalid(f"no delivery of the event {after[:80]!r} to go on from", faults=[fault])


def after_attempt(delivery: Delivery, outcome: Outcome, at: datetime) -> Mapping[str, object]:
    """The fields that change. One that has not arrived is due again when its claim has said, or is given up."""
    changes: dict[str, object] = {"status": outcome.status, "error": outcome.error}
    if outcome.arrived:
        changes["delivered_at"] = at
    if outcome.arrived or delivery.attempts > len(DELAYS):
        changes["next_attempt_at"] = None
    return changes
