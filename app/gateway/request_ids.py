"""A request's id: in its answer, in its errors and on each line that it logs."""

import logging
import re
import time
import uuid

from flask import Flask, Response, g, has_request_context, request

log = logging.getLogger("app.requests")

HEADER = "X-Request-ID"
_SANE = re.compile(r"[A-Za-z0-9._-]{1,128}")


def request_id() -> str:
    """The caller's own, if it is sane, else a new one; the same for the whole request."""
    if "request_id" not in g:
        given = request.headers.get(HEADER, "")
        g.request_id = given if _SANE.fullmatch(given) else uuid.uuid4().hex
    return str(g.request_id)


class RequestIdFilter(logging.Filter):
    """Gives each record a ``request_id``; a dash outside requests. config/logging.yaml names it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id() if has_request_context() else "-"
        return True


def init_request_ids(app: Flask) -> None:
    @app.before_request
    def start() -> None:
        g.started = time.perf_counter()

    @app.after_request
    def finish(response: Response) -> Response:
        response.headers[HEADER] = request_id()
        milliseconds = (time.perf_counter() - g.started) * 1000 if "started" in g else 0.0
        # %r: a path may hold a line break, which would forge a line of the log.
        log.info("%s %r %d %.1f ms", request.method, request.path, response.status_code, milliseconds)
        return response
