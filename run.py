"""What ``python run.py``, ``flask --app run`` and ``celery -A run`` find."""

import sys
from typing import TYPE_CHECKING, Any

from app import create_app as _create_app  # no name `app` here: Celery would take that for itself
from app.bootstrap import build_celery

if TYPE_CHECKING:
    from flask import Flask


def create_app() -> "Flask":
    """Build the application, with its commands for ``flask``."""
    from app.cli import init_cli
    from app.lab.commands import lab

    application = _create_app()
    init_cli(application)
    application.cli.add_command(lab)
    return application


def __getattr__(name: str) -> Any:
    """``celery``, made when a worker asks for it: to import this module opens nothing."""
    if name != "celery":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from app.tasks.worker import make_celery

    flask_app = _create_app()
    settings = flask_app.extensions["settings"]
    celery = make_celery(
        flask_app,
        build_celery(settings),
        slots=settings.slots,
        light_slots=settings.worker_light_slots,
        poll_seconds=settings.poll_seconds,
        drain_seconds=settings.drain_seconds,
    )
    globals()["celery"] = celery
    return celery


if __name__ == "__main__":
    from app.processes.supervisor import main

    sys.exit(main())
