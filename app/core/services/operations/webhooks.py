"""A project's webhooks: made, changed, tried."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from app.core.entities.identity import Principal
from app.core.entities.webhooks import (
    PING,
    Delivery,
    DeliveryPage,
    Webhook,
    known_events,
    new_delivery,
    new_event_id,
    new_secret,
)
from app.core.errors import Fault, Invalid, NotFound
from app.core.interfaces.services.operations import Webhooks
from app.core.interfaces.webhooks import SecretBox, WebhookRepository, WebhookSender

MOST_OF_A_PROJECT = 10
OLD_SECRET_FOR = timedelta(hours=24)


class WebhookService(Webhooks):
    """``kinds`` are those of jobs."""

    def __init__(
        self, webhooks: WebhookRepository, sender: WebhookSender, box: SecretBox, kinds: Sequence[str]
    ) -> None:
        self._events = known_events(kinds)
        self._webhooks = webhooks
        self._sender = sender
        self._box = box

    def create(
        self, principal: Principal, url: str, events: Sequence[str], enabled: bool = True
    ) -> tuple[Webhook, str]:
        self._check(url)
        ordered = self._in_order(events)
        secret = new_secret()
        webhook = Webhook(
            id=f"wh-{secrets.token_hex(12)}",
            project_id=principal.project_id,
            url=url,
            events=ordered,
            enabled=enabled,
            secret=self._box.seal(secret),
            created_by=principal.user_id,
            created_at=datetime.now(UTC),
        )
        self._webhooks.add(webhook, MOST_OF_A_PROJECT)
        return webhook, secret

    def webhooks(self, principal: Principal) -> Sequence[Webhook]:
        return self._webhooks.list(principal.project_id)

    def webhook(self, principal: Principal, webhook_id: str) -> Webhook:
        return _found(self._webhooks.get(principal.project_id, webhook_id), webhook_id)

    def change(
        self,
        principal: Principal,
        webhook_id: str,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        enabled: bool | None = None,
    ) -> Webhook:
        if url is not None:
            self._check(url)
        ordered = None if events is None else self._in_order(events)
        named = {"url": url, "events": ordered, "enabled": enabled}
        return self._change(principal, webhook_id, {key: one for key, one in named.items() if one is not None})

    def remove(self, principal: Principal, webhook_id: str) -> None:
        if not self._webhooks.remove(principal.project_id, webhook_id):
            raise _no_webhook(webhook_id)

    def rotate_secret(self, principal: Principal, webhook_id: str) -> tuple[Webhook, str]:
        secret = new_secret()
        changes = {
            "secret": self._box.seal(secret),
            "old_secret": self.webhook(principal, webhook_id).secret,
            "old_secret_until": datetime.now(UTC) + OLD_SECRET_FOR,
        }
        return self._change(principal, webhook_id, changes), secret

    def ping(self, principal: Principal, webhook_id: str) -> Delivery:
        event_id, now = new_event_id(), datetime.now(UTC)
        ping = new_delivery(webhook_id, principal.project_id, event_id, PING, webhook_id, now)
        if not self._webhooks.queue(ping):
            raise _no_webhook(webhook_id)
        return ping

    def deliveries(
        self, principal: Principal, webhook_id: str, *, limit: int = 20, after: str | None = None
    ) -> DeliveryPage:
        self.webhook(principal, webhook_id)
        found = self._webhooks.deliveries(principal.project_id, webhook_id, limit + 1, after)
        return DeliveryPage(found[:limit], found[limit - 1].event_id if len(found) > limit else None)

    def _change(self, principal: Principal, webhook_id: str, changes: Mapping[str, object]) -> Webhook:
        return _found(self._webhooks.change(principal.project_id, webhook_id, changes), webhook_id)

    def _check(self, url: str) -> None:
        if fault := self._sender.fault(url):
            raise Invalid("the webhook has faults", faults=[Fault("url", "invalid_url", fault)])

    def _in_order(self, events: Sequence[str]) -> tuple[str, ...]:
        if unknown := sorted(set(events) - set(self._events)):
            message = f"there is no event {unknown[0][:80]!r}; there are: {', '.join(self._events)}"
            raise Invalid("the webhook has faults", faults=[Fault("events", "unknown_event", message)])
        return tuple(event for event in self._events if event in events)


def _found(webhook: Webhook | None, webhook_id: str) -> Webhook:
    if webhook is None:
        raise _no_webhook(webhook_id)
    return webhook


def _no_webhook(webhook_id: str) -> NotFound:
    return NotFound(f"no webhook {webhook_id[:80]!r} in this project", code="webhook_not_found")
