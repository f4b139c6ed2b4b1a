"""What ``python run.py``, ``flask --app run`` and ``celery -A run`` find."""

import sys
from typing import Any

from app import create_app
from app.bootstrap import build_celery

__all__ = ["create_app"]


def __getattr__(name: str) -> Any:
    """``celery``, made when a worker asks for it: to import this module opens nothing."""
    if name != "celery":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from app.tasks.worker import make_celery

    flask_app = create_app()
    settings = flask_app.extensions["settings"]
    celery = make_celery(
        flask_app,
        build_celery(settings),
        slots=settings.slots,
        poll_seconds=settings.poll_seconds,
        drain_seconds=settings.drain_seconds,
    )
    globals()["celery"] = celery
    return celery


if __name__ == "__main__":
    from app.processes.supervisor import main

    sys.exit(main())
