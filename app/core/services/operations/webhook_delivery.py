"""Sends what waits in the outbox of webhooks."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from app.core.entities.webhooks import Delivery, Outcome, Webhook, signature
from app.core.errors import Unavailable
from app.core.interfaces.services.operations import WebhookDelivery
from app.core.interfaces.webhooks import SecretBox, WebhookRepository, WebhookSender

AT_ONCE = 8  # endpoints, so that one that hangs does not keep the others
GONE = 410  # Standard Webhooks: the endpoint wants no more

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


class WebhookDeliveryService(WebhookDelivery):
    """An attempt is counted before it is made."""

    def __init__(
        self,
        webhooks: WebhookRepository,
        sender: WebhookSender,
        box: SecretBox,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._webhooks = webhooks
        self._sender = sender
        self._box = box
        self._clock = clock

    def deliver_due(self) -> bool:
        due = self._webhooks.claim_due(self._clock(), AT_ONCE)
        if due:
            with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook") as pool:
                list(pool.map(lambda pair: self._deliver(*pair), due))
        return bool(due)

    def _deliver(self, webhook: Webhook, delivery: Delivery) -> None:
        now = self._clock()
        outcome = self._attempt(webhook, delivery, now)
        said = outcome.error or outcome.status
        log.info("webhook %s: %s, attempt %d: %s", webhook.id, delivery.event_id, delivery.attempts, said)
        self._webhooks.finish(delivery, outcome, now)
        if outcome.status == GONE:
            self._webhooks.change(webhook.project_id, webhook.id, {"enabled": False})

    def _attempt(self, webhook: Webhook, delivery: Delivery, now: datetime) -> Outcome:
        sealed = [webhook.secret]
        if (
            webhook.old_secret is not None
            and webhook.old_secret_until is not None
            and now < webhook.old_secret_until
        ):
            sealed.append(webhook.old_secret)
        try:
            secrets = [self._box.open(one) for one in sealed]
        except Unavailable as error:
            return Outcome(error=error.code)
        timestamp = int(now.timestamp())
        headers = {
            "content-type": "application/json",
            "user-agent": "llm-finetuning",
            "webhook-id": delivery.event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(secrets, delivery.event_id, timestamp, delivery.body),
        }
        return self._sender.post(webhook.url, headers, delivery.body)
