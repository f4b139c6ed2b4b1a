"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header) on the routes that create something."""

import hashlib
from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import Response, current_app, request
from webargs.flaskparser import is_json_request
from werkzeug.exceptions import HTTPException

from app.core.entities.idempotency import KeptAnswer
from app.core.errors import AppError
from app.extensions import current_services
from app.gateway.authentication import current_principal
from app.gateway.errors import from_app_error, from_http_exception
from app.gateway.openapi import Blueprint

View = Callable[..., Any]

HEADER = "Idempotency-Key"
KEPT_HEADERS = ("Content-Type", "Location", "Retry-After", "X-Should-Retry")
NOT_ABOUT_THE_BODY = frozenset({401, 403, 408, 429})
CHUNK = 1024 * 1024


def creates(*, secret: bool = False) -> Callable[[View], View]:
    """The view makes something, once for each Idempotency-Key; OpenAPI says so.

    An answer with a ``secret`` is not kept: sent again, the request is told that it was done. It stands above the
    decorators that read the body, and below those that say who may send one.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def once(*args: Any, **kwargs: Any) -> Any:
            key = request.headers.get(HEADER)
            return view(*args, **kwargs) if key is None else _once(key, lambda: view(*args, **kwargs), secret)

        documented: View = Blueprint.errors(409, 422)(once)
        documented._apidoc["creates"] = True  # type: ignore[attr-defined]
        return documented

    return decorate


def _once(key: str, view: Callable[[], Any], secret: bool) -> Response:
    service, where = current_services().idempotency, f"{request.method} {request.path}"
    held = service.begin(current_principal(), where, key, _fingerprint(key))
    if held.answer is not None:
        answer = held.answer
        replayed = {**answer.headers, "Idempotency-Replayed": "true"}
        return Response(answer.body, answer.status, replayed)
    try:
        response = _answer(view)
    except BaseException:
        service.release(held)
        raise
    if response.status_code >= 500 or response.status_code in NOT_ABOUT_THE_BODY:
        service.release(held)
        return response
    headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
    body = None if secret and response.status_code < 400 else response.get_data(as_text=True)
    service.keep(held, KeptAnswer(response.status_code, headers, body))
    return response


def _answer(view: Callable[[], Any]) -> Response:
    try:
        return current_app.make_response(view())
    except AppError as error:
        return from_app_error(error)
    except HTTPException as error:
        return from_http_exception(error)


def _fingerprint(key: str) -> str:
    """Of the query and the body. The key, which is kept nowhere, salts it: a body may have a password."""
    digest = hashlib.sha256(key.encode() + b"\0" + request.query_string + b"\0" + request.mimetype.encode())
    for name, file in request.files.items(multi=True):  # parsed, as each client draws its own boundary
        digest.update(f"\0{name}\0{file.filename}\0".encode())
        while chunk := file.stream.read(CHUNK):
            digest.update(chunk)
        file.stream.seek(0)
    for name, value in request.form.items(multi=True):
        digest.update(f"\0{name}\0{value}\0".encode())
    if is_json_request(request):
        digest.update(request.get_data(cache=True))
    return digest.hexdigest()
