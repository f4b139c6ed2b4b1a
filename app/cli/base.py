"""What every ``flask`` command has: who it acts for, and how it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from flask.cli import AppGroup

from app.bootstrap import SettingsError, one_line
from app.core.entities.identity import DEFAULT_PROJECT_ID, Principal, Role
from app.core.errors import AppError
from app.extensions import current_services

if TYPE_CHECKING:
    from app.core.services import Services

OPERATOR = Principal(user_id="operator", username="operator", project_id=DEFAULT_PROJECT_ID, role=Role.OPERATOR)
PROJECT = click.option("--project", default=DEFAULT_PROJECT_ID, show_default=True, help="Its id.")


class Command(click.Command):
    """A failure is one line on standard error and exit status 1; a usage error is click's, with 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (AppError, SettingsError) as error:
            raise click.ClickException(one_line(error)) from None


class Commands(Command, AppGroup):
    pass


def services() -> Services:
    """Those that need the database, once it is there."""
    found = current_services()
    found.monitoring.require_database()
    return found


def operator_in(project_id: str) -> Principal:
    """``NotFound`` (project_not_found)."""
    return services().projects.acting_in(OPERATOR, project_id)
