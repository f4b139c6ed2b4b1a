"""What a job's end puts into the outbox of webhooks, in the transaction that ends it."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import object_session

from app.core.entities.jobs import JobState
from app.core.entities.webhooks import events_of_end, new_delivery, new_event_id
from app.repositories.mapping import delivery_row
from app.repositories.tables import JobRow, WebhookRow


def tell_of_end(row: JobRow, state: JobState, at: datetime) -> None:
    """Tell every enabled endpoint of its project that asked for the event; all are told the same event."""
    session = object_session(row)
    if session is None:
        raise AssertionError("the row belongs to the transaction that ends the job")
    events = {event: new_event_id() for event in events_of_end(row.kind, state)}
    # Locked: nobody removes an endpoint under its delivery, which would undo the end of the job.
    endpoints = select(WebhookRow).where(WebhookRow.project_id == row.project_id, WebhookRow.enabled)
    for webhook in session.scalars(endpoints.with_for_update(read=True, key_share=True)):
        for event in events.keys() & set(webhook.events):
            delivery = new_delivery(webhook.id, row.project_id, events[event], event, row.id, at)
            session.add(delivery_row(delivery))
