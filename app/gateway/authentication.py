"""Who may call: the bearer token of a request, and the role that a route wants."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import g, request

from app.core.entities.identity import Principal, Role
from app.core.errors import AppError, Forbidden, Unauthorized
from app.extensions import current_services
from app.gateway.openapi import Blueprint

View = Callable[..., Any]


def current_principal() -> Principal:
    """The caller. ``Unauthorized`` without a valid token; asked once a request."""
    if "principal" not in g:
        try:
            g.principal = current_services().identity.authenticate(_bearer_token())
        except AppError as error:
            g.principal = error
    if isinstance(g.principal, AppError):
        raise g.principal
    principal: Principal = g.principal
    return principal


def require(role: Role) -> Callable[[View], View]:
    """Only members with the role, or one that covers it, get to the view; OpenAPI says so.

    It stands above the decorators that read the body: a stranger's body is never parsed.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def checked(*args: Any, **kwargs: Any) -> Any:
            if not current_principal().role.covers(role):
                raise Forbidden(f"this needs the role {role.value}")
            return view(*args, **kwargs)

        documented: View = Blueprint.doc(security=[{"bearer": []}])(Blueprint.errors(401, 403)(checked))
        return documented

    return decorate


def _bearer_token() -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("send Authorization: Bearer with a token from POST /api/v1/auth/token")
    return token.strip()
