"""``flask webhooks``: who is told when a project's jobs end."""

from __future__ import annotations

import click

from app.cli.base import PROJECT, Commands, operator_in, services
from app.core.entities.webhooks import WebhookEvent

webhooks = Commands("webhooks", help="Addresses that are told when a project's jobs end.")

_ID = click.argument("webhook_id", metavar="ID")


@webhooks.command("create")
@PROJECT
@click.option("--url", required=True, help="https, and a public address (or WEBHOOK_ALLOWED_NETWORKS).")
@click.option(
    "--event",
    "events",
    multiple=True,
    help="fine_tuning.job.succeeded, process.job.failed …; may be repeated; else the ends of fine-tuning jobs.",
)
def create_webhook(project: str, url: str, events: tuple[str, ...]) -> None:
    """Make a webhook, and print its id and its secret, which is shown this once."""
    webhook, secret = services().webhooks.create(operator_in(project), url, events or list(WebhookEvent))
    click.echo(f"{webhook.id} {secret}")


@webhooks.command("list")
@PROJECT
def list_webhooks(project: str) -> None:
    """List the project's webhooks."""
    for webhook in services().webhooks.webhooks(operator_in(project)):
        state = "on" if webhook.enabled else "off"
        click.echo(f"{webhook.id}  {state:3}  {webhook.url}  {' '.join(webhook.events)}")


@webhooks.command("enable")
@PROJECT
@_ID
def enable(project: str, webhook_id: str) -> None:
    """Switch a webhook on."""
    services().webhooks.change(operator_in(project), webhook_id, enabled=True)


@webhooks.command("disable")
@PROJECT
@_ID
def disable(project: str, webhook_id: str) -> None:
    """Switch a webhook off."""
    services().webhooks.change(operator_in(project), webhook_id, enabled=False)


@webhooks.command("delete")
@PROJECT
@_ID
def delete(project: str, webhook_id: str) -> None:
    """Remove a webhook, with what waits for it."""
    services().webhooks.remove(operator_in(project), webhook_id)


@webhooks.command("rotate-secret")
@PROJECT
@_ID
def rotate_secret(project: str, webhook_id: str) -> None:
    """Print a new secret. For a day the old one signs too."""
    _, secret = services().webhooks.rotate_secret(operator_in(project), webhook_id)
    click.echo(secret)


@webhooks.command("ping")
@PROJECT
@_ID
def ping(project: str, webhook_id: str) -> None:
    """Have the worker send an event that says nothing, and print its id."""
    click.echo(services().webhooks.ping(operator_in(project), webhook_id).event_id)


@webhooks.command("deliveries")
@PROJECT
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@_ID
def deliveries(project: str, webhook_id: str, limit: int) -> None:
    """List what it was sent, or is to be sent, newest first."""
    for one in services().webhooks.deliveries(operator_in(project), webhook_id, limit=limit).deliveries:
        said = one.error or one.status or "-"
        again = f"again at {one.next_attempt_at:%Y-%m-%d %H:%M}" if one.next_attempt_at else ""
        line = f"{one.event_id}  {one.type:26} {one.state:9} {one.attempts} attempt(s)  {said}  {again}"
        click.echo(line.rstrip())
