"""gunicorn's worker for the web application: ``--worker-class app.processes.web.WebWorker``."""

from types import FrameType
from typing import Any

from gunicorn.workers.gthread import ThreadWorker


class WebWorker(ThreadWorker):  # type: ignore[misc]
    """A thread worker whose event streams end when it is told to stop: it would wait for their clients."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._end_streams()
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        self._end_streams()
        super().handle_quit(sig, frame)

    def _end_streams(self) -> None:
        application: Any = getattr(self, "wsgi", None)  # None: it has not been loaded yet
        if application is not None:
            application.extensions["streams"].end()
