"""What a job's end puts into the outbox of webhooks, in the transaction that ends it."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import object_session

from app.core.entities.jobs import JobState
from app.core.entities.webhooks import WebhookEvent, new_delivery, new_event_id
from app.repositories.mapping import delivery_row
from app.repositories.tables import JobRow, WebhookRow

EVENTS = {
    JobState.SUCCEEDED: WebhookEvent.SUCCEEDED,
    JobState.FAILED: WebhookEvent.FAILED,
    JobState.CANCELLED: WebhookEvent.CANCELLED,
}


def tell_of_end(row: JobRow, state: JobState, at: datetime) -> None:
    """To every enabled endpoint of its project that asked for the event; all are told the same event."""
    session = object_session(row)
    if session is None:
        raise AssertionError("the row belongs to the transaction that ends the job")
    event, event_id = EVENTS[state], new_event_id()
    # Locked: nobody removes an endpoint under its delivery, which would undo the end of the job.
    endpoints = select(WebhookRow).where(WebhookRow.project_id == row.project_id, WebhookRow.enabled)
    for webhook in session.scalars(endpoints.with_for_update(read=True, key_share=True)):
        if event in webhook.events:
            session.add(delivery_row(new_delivery(webhook.id, row.project_id, event_id, event, row.id, at)))
