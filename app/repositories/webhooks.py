"""Webhooks and their outbox, in a SQL database."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Engine, Select, delete, func, select, tuple_

from app.core.entities.webhooks import DELAYS, KEPT_FOR, Delivery, Outcome, Webhook
from app.core.errors import Conflict, unknown_page
from app.core.interfaces.webhooks import WebhookRepository
from app.repositories.claiming import locked_project
from app.repositories.database import Database
from app.repositories.mapping import delivery_entity, delivery_row, webhook_entity, webhook_row
from app.repositories.tables import WebhookDeliveryRow, WebhookRow


class SqlWebhookRepository(WebhookRepository):
    def __init__(self, engine: Engine) -> None:
        self._database = Database(engine)

    def add(self, webhook: Webhook, most: int) -> None:
        count = select(func.count()).select_from(WebhookRow).where(WebhookRow.project_id == webhook.project_id)
        with self._database.write() as session:
            locked_project(session, webhook.project_id)
            if (session.scalar(count) or 0) >= most:
                message = f"a project has at most {most} webhooks: remove one first"
                raise Conflict(message, code="too_many_webhooks")
            session.add(webhook_row(webhook))

    def get(self, project_id: str, webhook_id: str) -> Webhook | None:
        with self._database.read() as session:
            row = session.scalar(_of_project(project_id, webhook_id))
            return None if row is None else webhook_entity(row)

    def list(self, project_id: str) -> Sequence[Webhook]:
        query = select(WebhookRow).where(WebhookRow.project_id == project_id)
        with self._database.read() as session:
            rows = session.scalars(query.order_by(WebhookRow.created_at, WebhookRow.id))
            return [webhook_entity(row) for row in rows]

    def change(self, project_id: str, webhook_id: str, changes: Mapping[str, object]) -> Webhook | None:
        with self._database.write() as session:
            row = session.scalar(_of_project(project_id, webhook_id).with_for_update())
            if row is None:
                return None
            for name, value in changes.items():
                setattr(row, name, value)
            return webhook_entity(row)

    def remove(self, project_id: str, webhook_id: str) -> bool:
        with self._database.write() as session:
            row = session.scalar(_of_project(project_id, webhook_id).with_for_update())
            if row is not None:
                session.execute(delete(WebhookDeliveryRow).where(WebhookDeliveryRow.webhook_id == webhook_id))
                session.delete(row)
            return row is not None

    def queue(self, delivery: Delivery) -> bool:
        endpoint = _of_project(delivery.project_id, delivery.webhook_id)
        with self._database.write() as session:
            row = session.scalar(endpoint.with_for_update(read=True, key_share=True))
            if row is not None:
                session.add(delivery_row(delivery))
            return row is not None

    def deliveries(
        self, project_id: str, webhook_id: str, limit: int, after: str | None = None
    ) -> Sequence[Delivery]:
        row = WebhookDeliveryRow
        query = select(row).where(row.project_id == project_id, row.webhook_id == webhook_id)
        with self._database.read() as session:
            if after is not None:
                last = session.scalar(query.where(row.event_id == after))
                if last is None:
                    raise unknown_page("event", after)
                query = query.where(tuple_(row.created_at, row.event_id) < (last.created_at, last.event_id))
            rows = session.scalars(query.order_by(row.created_at.desc(), row.event_id.desc()).limit(limit))
            return [delivery_entity(one) for one in rows]

    def claim_due(self, now: datetime, most: int) -> Sequence[tuple[Webhook, Delivery]]:
        row = WebhookDeliveryRow
        due = row.next_attempt_at <= now
        endpoints = (
            select(row.webhook_id)
            .join(WebhookRow, WebhookRow.id == row.webhook_id)
            .where(due, WebhookRow.enabled)
            .group_by(row.webhook_id)
            .order_by(func.min(row.next_attempt_at))
            .limit(most)
        )
        with self._database.read() as session:  # mostly there is none, and nobody's write has to wait for that
            waiting = session.scalars(endpoints).all()
        claimed = []
        for webhook_id in waiting:
            oldest = select(row).where(due, row.webhook_id == webhook_id).order_by(row.next_attempt_at).limit(1)
            with self._database.write() as session:
                found = session.scalar(oldest.with_for_update(skip_locked=True))
                webhook = session.get(WebhookRow, webhook_id)
                if found is not None and webhook is not None:
                    found.attempts += 1
                    found.last_attempt_at = now
                    found.next_attempt_at = now + DELAYS[min(found.attempts, len(DELAYS)) - 1]
                    claimed.append((webhook_entity(webhook), delivery_entity(found)))
        return claimed

    def finish(self, delivery: Delivery, outcome: Outcome, at: datetime) -> None:
        row = WebhookDeliveryRow
        is_over = (row.webhook_id == delivery.webhook_id, row.next_attempt_at.is_(None))
        with self._database.write() as session:
            key = (delivery.webhook_id, delivery.event_id)
            found = session.get(row, key, with_for_update=True)
            if found is not None and found.attempts == delivery.attempts:
                found.status, found.error = outcome.status, outcome.error
                if outcome.arrived:
                    found.delivered_at = at
                if outcome.arrived or delivery.attempts > len(DELAYS):  # else it is due when its claim has said
                    found.next_attempt_at = None
            session.execute(delete(row).where(*is_over, row.created_at < at - KEPT_FOR))


def _of_project(project_id: str, webhook_id: str) -> Select[WebhookRow]:
    return select(WebhookRow).where(WebhookRow.project_id == project_id, WebhookRow.id == webhook_id)
