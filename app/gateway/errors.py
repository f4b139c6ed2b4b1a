"""Errors become HTTP here alone: RFC 9457 problem details, or the OpenAI envelope for addresses under /v1."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, current_app, jsonify, request
from werkzeug.exceptions import HTTPException, SecurityError

from app.core.errors import AppError, Fault
from app.gateway.error_codes import CODES, PAGE
from app.gateway.request_ids import request_id

log = logging.getLogger(__name__)

MOST_FAULTS = 100  # a body of 10 MB can hold a million
LONGEST = 500  # characters of what a client sent, echoed in a message

_CODES = {
    400: ("bad_request", "this is not a sound request"),
    404: ("not_found", "there is nothing at this address: /docs lists what there is"),
    405: ("method_not_allowed", "this address does not take this method"),
    408: ("request_timeout", "the request took too long to arrive"),
    413: ("body_too_large", "the body is larger than this service accepts"),
    415: ("unsupported_media_type", "send the body as Content-Type: application/json"),
    416: ("range_not_satisfiable", "the file has no such range"),
}
_INTERNAL = ("internal_error", "something went wrong here: the log has more under this request id")


def init_errors(app: Flask) -> None:
    app.register_error_handler(AppError, from_app_error)
    app.register_error_handler(HTTPException, from_http_exception)
    app.register_error_handler(Exception, _from_exception)


def from_app_error(error: AppError) -> Response:
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"  # RFC 6750 § 3
    return _answer(error.status, error.code, error.message, error.faults, headers)


def from_http_exception(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 400:  # a redirect
        return current_app.make_response(error)
    if isinstance(error, SecurityError):
        return _answer(
            400, "untrusted_host", "not a name of this service: its operator lists them in TRUSTED_HOSTS"
        )
    if status not in _CODES:
        status = 400 if status < 500 else 500
    code, message = _CODES.get(status, _INTERNAL)
    allow = {"Allow": ", ".join(sorted(methods))} if (methods := getattr(error, "valid_methods", None)) else {}
    return _answer(status, code, message, headers=allow)


def _from_exception(error: Exception) -> Response:
    log.error("%s %r failed", request.method, request.path, exc_info=error)
    return _answer(500, *_INTERNAL)


def _answer(
    status: int,
    code: str,
    message: str,
    faults: Sequence[Fault] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    shown = [
        {"where": fault.where[:LONGEST], "code": fault.code, "message": fault.message[:LONGEST]}
        for fault in faults[:MOST_FAULTS]
    ]
    if len(faults) > MOST_FAULTS:
        message = f"{message} (the first {MOST_FAULTS} of {len(faults)} faults are shown)"
    openai = request.path == "/v1" or request.path.startswith("/v1/")
    if openai and status == 422:
        status = 400  # as OpenAI answers
    body = (
        envelope(status, code, message, shown) if openai else problem(status, code, message, shown, request_id())
    )
    response = jsonify(body)
    response.status_code = status
    response.headers.update(headers or {})
    if not openai:
        response.content_type = "application/problem+json"
    elif status == 409 and "Retry-After" not in response.headers:
        response.headers["X-Should-Retry"] = "false"  # OpenAI's client would ask again, twice
    return response


def problem(
    status: int, code: str, message: str, faults: Sequence[Mapping[str, str]], request_id: str
) -> dict[str, Any]:
    """RFC 9457's."""
    return {
        "type": f"{PAGE}#{code}",
        "title": CODES[code].title if code in CODES else HTTPStatus(status).phrase,
        "status": status,
        "detail": message,
        "code": code,
        "request_id": request_id,
        "errors": faults,
    }


def envelope(status: int, code: str, message: str, faults: Sequence[Mapping[str, str]] = ()) -> dict[str, Any]:
    """OpenAI's."""
    kind = "rate_limit_error" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
    lines = [message, *(f"{fault['where']}: {fault['message']}" for fault in faults)]
    param = faults[0]["where"] if faults else None
    return {"error": {"message": "\n".join(lines), "type": kind, "param": param, "code": code}}
