"""Unbound Flask objects, and the services of the app that is running."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flask import current_app
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

if TYPE_CHECKING:
    from app.core.services import Services


class Base(DeclarativeBase):
    """Declarative base of every table. Constraints have names: a migration on SQLite finds them by these."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


db = SQLAlchemy(model_class=Base)
migrate = Migrate()


def current_services() -> Services:
    """The services that ``create_app`` put on the running app. For api, gateway, tasks and cli alone."""
    return cast("Services", current_app.extensions["services"])
