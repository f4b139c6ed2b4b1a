"""Unbound Flask objects, and the services of the app that is running."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flask import current_app
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase

if TYPE_CHECKING:
    from app.core.services import Services


class Base(DeclarativeBase):
    """Declarative base of every table."""


db = SQLAlchemy(model_class=Base)
migrate = Migrate()


def current_services() -> Services:
    """The services that ``create_app`` put on the running app. For api, gateway, tasks and cli alone."""
    return cast("Services", current_app.extensions["services"])
