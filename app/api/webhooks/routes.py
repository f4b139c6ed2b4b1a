"""Webhooks: a project is told when its jobs end."""

from dataclasses import asdict
from typing import Any

from app.api.webhooks.schemas import (
    DeliveryListSchema,
    DeliveryQuerySchema,
    DeliverySchema,
    NewWebhookSchema,
    WebhookChangeSchema,
    WebhookListSchema,
    WebhookSchema,
    WebhookWithSecretSchema,
)
from app.core.entities.identity import Role
from app.core.entities.webhooks import Delivery, DeliveryPage, Webhook
from app.extensions import current_services
from app.gateway.authentication import current_principal, require
from app.gateway.idempotency import creates
from app.gateway.openapi import Blueprint

blueprint = Blueprint("webhooks", __name__, url_prefix="/api/v1/webhooks", description="Webhooks")

NEW = {"url": "https://hooks.example.com/llm", "events": ["fine_tuning.job.succeeded", "fine_tuning.job.failed"]}
WEBHOOK = {
    **NEW,
    "id": "wh-0123456789abcdef01234567",
    "enabled": True,
    "created_by": "user-0123",
    "created_at": "2026-11-24T09:30:00+00:00",
    "old_secret_until": None,
}
DELIVERY = {
    "event_id": "evt_0123456789abcdef01234567",
    "type": "fine_tuning.job.succeeded",
    "state": "delivered",
    "attempts": 1,
    "status": 204,
    "error": None,
    "created_at": "2026-11-24T09:30:00+00:00",
    "last_attempt_at": "2026-11-24T09:30:01+00:00",
    "next_attempt_at": None,
    "delivered_at": "2026-11-24T09:30:01+00:00",
}
PING = {
    **DELIVERY,
    "type": "webhook.ping",
    "state": "pending",
    "attempts": 0,
    "status": None,
    "last_attempt_at": None,
    "next_attempt_at": DELIVERY["created_at"],
    "delivered_at": None,
}


@blueprint.post("")
@require(Role.ADMIN)
@creates(secret=True)
@blueprint.arguments(NewWebhookSchema, example=NEW)
@blueprint.response(201, WebhookWithSecretSchema, example={**WEBHOOK, "secret": "whsec_…"})
@blueprint.errors(400, 409)
def create_webhook(body: dict[str, Any]) -> dict[str, Any]:
    """Have an address told when jobs end: `secret` is shown this once

    Each event is signed with it (Standard Webhooks): `OpenAI(webhook_secret=…).webhooks.unwrap` verifies that. 409
    `too_many_webhooks`.
    """
    webhook, secret = current_services().webhooks.create(
        current_principal(), body["url"], body["events"], body["enabled"]
    )
    return {**asdict(webhook), "secret": secret}


@blueprint.get("")
@require(Role.ADMIN)
@blueprint.response(200, WebhookListSchema, example={"data": [WEBHOOK]})
@blueprint.errors()
def list_webhooks() -> dict[str, Any]:
    """List the project's webhooks, oldest first

    Those that are switched off too. Secrets are not shown: they are where one is made, or rotated.
    """
    return {"data": current_services().webhooks.webhooks(current_principal())}


@blueprint.get("/<webhook_id>")
@require(Role.ADMIN)
@blueprint.response(200, WebhookSchema, example=WEBHOOK)
@blueprint.errors(404)
def show_webhook(webhook_id: str) -> Webhook:
    """Show a webhook

    All but its secret. 404 `webhook_not_found`, for another project's too.
    """
    return current_services().webhooks.webhook(current_principal(), webhook_id)


@blueprint.patch("/<webhook_id>")
@require(Role.ADMIN)
@blueprint.arguments(WebhookChangeSchema, example={"enabled": False})
@blueprint.response(200, WebhookSchema, example={**WEBHOOK, "enabled": False})
@blueprint.errors(400, 404)
def change_webhook(body: dict[str, Any], webhook_id: str) -> Webhook:
    """Change a webhook's address or events, or switch it off and on

    While it is off it is told of no new event; what waits for it is sent when it is on again.
    """
    if "events" in body:
        body["events"] = body["events"]
    return current_services().webhooks.change(current_principal(), webhook_id, **body)


@blueprint.delete("/<webhook_id>")
@require(Role.ADMIN)
@blueprint.response(204)
@blueprint.errors(404)
def remove_webhook(webhook_id: str) -> None:
    """Remove a webhook, with what waits for it

    Its list of deliveries goes with it. An event that a worker is sending just then may still arrive.
    """
    current_services().webhooks.remove(current_principal(), webhook_id)


@blueprint.post("/<webhook_id>/rotate-secret")
@require(Role.ADMIN)
@creates(secret=True)
@blueprint.response(
    200,
    WebhookWithSecretSchema,
    example={**WEBHOOK, "old_secret_until": "2026-11-25T09:30:00+00:00", "secret": "whsec_…"},
)
@blueprint.errors(404)
def rotate_secret(webhook_id: str) -> dict[str, Any]:
    """Give a webhook another secret, shown this once

    For a day each event is signed with both, so that the receiver can change over in its own time.
    """
    webhook, secret = current_services().webhooks.rotate_secret(current_principal(), webhook_id)
    return {**asdict(webhook), "secret": secret}


@blueprint.post("/<webhook_id>/ping")
@require(Role.ADMIN)
@creates()
@blueprint.response(202, DeliverySchema, example=PING)
@blueprint.errors(404)
def ping(webhook_id: str) -> Delivery:
    """Send a webhook an event that says nothing (`webhook.ping`), to try it

    A worker sends it within seconds, as any other; the deliveries say how it went.
    """
    return current_services().webhooks.ping(current_principal(), webhook_id)


@blueprint.get("/<webhook_id>/deliveries")
@require(Role.ADMIN)
@blueprint.arguments(DeliveryQuerySchema, location="query")
@blueprint.response(200, DeliveryListSchema, example={"data": [DELIVERY], "next": None})
@blueprint.errors(404)
def list_deliveries(query: dict[str, Any], webhook_id: str) -> DeliveryPage:
    """List what a webhook was sent, or is to be sent, newest first

    Of an answer its status is kept, and nothing else. What is over is listed for thirty days. 422 for an `after`
    that is none of the list.
    """
    return current_services().webhooks.deliveries(current_principal(), webhook_id, **query)
