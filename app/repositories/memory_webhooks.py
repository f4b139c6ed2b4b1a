"""The in-memory twin of the webhooks' repository. (No job in memory puts anything into it.)"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from app.core.entities.webhooks import DELAYS, KEPT_FOR, Delivery, Outcome, Webhook
from app.core.interfaces.webhooks import WebhookRepository
from app.repositories.memory import locked
from app.repositories.webhook_rules import after_attempt, check_room, unknown_page


class MemoryWebhookRepository(WebhookRepository):
    def __init__(self) -> None:
        self._webhooks: dict[str, Webhook] = {}
        self._deliveries: dict[tuple[str, str], Delivery] = {}

    @locked
    def add(self, webhook: Webhook, most: int) -> None:
        check_room(len(self.list(webhook.project_id)), most)
        self._webhooks[webhook.id] = webhook

    @locked
    def get(self, project_id: str, webhook_id: str) -> Webhook | None:
        found = self._webhooks.get(webhook_id)
        return found if found is not None and found.project_id == project_id else None

    @locked
    def list(self, project_id: str) -> Sequence[Webhook]:
        return [webhook for webhook in self._webhooks.values() if webhook.project_id == project_id]

    @locked
    def change(self, project_id: str, webhook_id: str, changes: Mapping[str, Any]) -> Webhook | None:
        found = self.get(project_id, webhook_id)
        if found is not None:
            found = self._webhooks[webhook_id] = replace(found, **changes)
        return found

    @locked
    def remove(self, project_id: str, webhook_id: str) -> bool:
        if self.get(project_id, webhook_id) is None:
            return False
        del self._webhooks[webhook_id]
        self._deliveries = {key: one for key, one in self._deliveries.items() if key[0] != webhook_id}
        return True

    @locked
    def queue(self, delivery: Delivery) -> bool:
        if self.get(delivery.project_id, delivery.webhook_id) is None:
            return False
        self._deliveries[delivery.webhook_id, delivery.event_id] = delivery
        return True

    @locked
    def deliveries(
        self, project_id: str, webhook_id: str, limit: int, after: str | None = None
    ) -> Sequence[Delivery]:
        of_webhook = (project_id, webhook_id)
        found = [one for one in self._deliveries.values() if (one.project_id, one.webhook_id) == of_webhook]
        found.sort(key=lambda one: (one.created_at, one.event_id), reverse=True)
        if after is not None:
            places = [place for place, one in enumerate(found) if one.event_id == after]
            if not places:
                raise unknown_page(after)
            found = found[places[0] + 1 :]
        return found[:limit]

    @locked
    def claim_due(self, now: datetime, most: int) -> Sequence[tuple[Webhook, Delivery]]:
        due = [one for one in self._deliveries.values() if one.next_attempt_at and one.next_attempt_at <= now]
        first: dict[str, Delivery] = {}
        for one in sorted(due, key=lambda one: one.next_attempt_at or now):
            if self._webhooks[one.webhook_id].enabled:
                first.setdefault(one.webhook_id, one)
        claimed = []
        for one in list(first.values())[:most]:
            later = now + DELAYS[min(one.attempts + 1, len(DELAYS)) - 1]
            taken = replace(one, attempts=one.attempts + 1, last_attempt_at=now, next_attempt_at=later)
            self._deliveries[one.webhook_id, one.event_id] = taken
            claimed.append((self._webhooks[one.webhook_id], taken))
        return claimed

    @locked
    def finish(self, delivery: Delivery, outcome: Outcome, at: datetime) -> None:
        key = (delivery.webhook_id, delivery.event_id)
        found = self._deliveries.get(key)
        if found is not None and found.attempts == delivery.attempts:
            changes: Mapping[str, Any] = after_attempt(delivery, outcome, at)
            self._deliveries[key] = replace(found, **changes)
        self._deliveries = {
            key: one
            for key, one in self._deliveries.items()
            if key[0] != delivery.webhook_id or one.next_attempt_at or one.created_at >= at - KEPT_FOR
        }
