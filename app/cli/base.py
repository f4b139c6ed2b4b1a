"""What every ``flask`` command has: who it acts for, and how it fails."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from flask.cli import AppGroup

from app.bootstrap import SettingsError, one_line
from app.core.entities.audit import AuditEntry
from app.core.entities.identity import DEFAULT_PROJECT_ID, Principal
from app.core.errors import AppError
from app.extensions import current_services

if TYPE_CHECKING:
    from app.core.services import Services

PROJECT = click.option("--project", default=DEFAULT_PROJECT_ID, show_default=True, help="Its id.")

# The commands that change what is in the database, each with the action that the audit log has for it. Every other
# one only reads, or works on files of the host: tests/unit/test_cli_audit.py has their list.
CHANGES = {
    "data upload": "datasets.upload",
    "data process": "datasets.process",
    "data tag": "datasets.set_tag",
    "data untag": "datasets.remove_tag",
    "data restore": "datasets.restore",
    "data delete": "datasets.delete",
    "jobs cancel": "train.cancel",
    "jobs pause": "train.pause",
    "jobs resume": "train.resume",
    "jobs retry": "train.retry",
    "keys create": "keys.create_key",
    "keys revoke": "keys.revoke_key",
    "keys rotate-signing": "keys.rotate_signing_key",
    "models alias": "models.set_alias",
    "models unalias": "models.remove_alias",
    "projects create": "projects.create_project",
    "projects limits": "projects.set_limits",
    "projects remove-member": "members.remove_member",
    "projects set-role": "members.set_role",
    "train submit": "train.submit",
    "users create": "users.create_user",
    "users disable": "users.disable",
    "users enable": "users.enable",
    "users link": "users.link",
    "users set-password": "users.set_password",
    "users sign-out": "users.sign_out",
    "users unlink": "users.unlink",
    "webhooks create": "webhooks.create_webhook",
    "webhooks delete": "webhooks.remove_webhook",
    "webhooks disable": "webhooks.change_webhook",
    "webhooks enable": "webhooks.change_webhook",
    "webhooks ping": "webhooks.ping",
    "webhooks rotate-secret": "webhooks.rotate_secret",
}


class Command(click.Command):
    """A failure is one line on standard error and exit status 1; a usage error is click's, with 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (AppError, SettingsError) as error:
            raise click.ClickException(one_line(error)) from None


class Recorded(click.Command):
    """A change leaves an entry in the audit log. A command that makes something answers its id for that."""

    def invoke(self, ctx: click.Context) -> Any:
        action = CHANGES.get(f"{ctx.parent.info_name} {ctx.info_name}") if ctx.parent else None
        try:
            made = super().invoke(ctx)
        except AppError as error:
            if action and error.code != "database_not_ready":
                _record(ctx, action, None, error.status)
            raise
        if action:
            _record(ctx, action, made, 200)
        return made


class Commands(Command, AppGroup):
    command_class = Recorded


def _record(ctx: click.Context, action: str, made: str | None, status: int) -> None:
    """Whoever may run the command is the operator of this host: the actor is cli."""
    named = [ctx.params[one.name or ""] for one in ctx.command.params if isinstance(one, click.Argument)]
    texts = [one.name if isinstance(one, Path) else one for one in named if isinstance(one, str | Path)]
    current_services().audit.record(
        AuditEntry(
            project_id=ctx.params.get("project") or ctx.params.get("project_id") or DEFAULT_PROJECT_ID,
            created_at=datetime.now(UTC),
            actor="cli",
            user_id=None,
            key_id=None,
            address="",
            action=action,
            kind=(ctx.parent.info_name or "").removesuffix("s") if ctx.parent else "",
            object_id=made or "/".join(texts),
            status=status,
            request_id="",
        )
    )


def services() -> Services:
    """Those that need the database, once it is there."""
    found = current_services()
    found.monitoring.require_database()
    return found


def operator_in(project_id: str) -> Principal:
    """Return the operator of this host in that project. ``NotFound`` (project_not_found)."""
    return services().projects.acting_in(project_id)
