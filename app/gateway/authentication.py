"""Who may call: the bearer token or API key of a request, and the role and scope that a route wants."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import g, request

from app.core.entities.identity import Principal, Role
from app.core.errors import AppError, Forbidden, Unauthorized
from app.extensions import current_services
from app.gateway import audit
from app.gateway.access import scope_of
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
    """Only callers with the role, or one that covers it, get to the view; OpenAPI says so.

    The caller's key must have the route's scope too (app.gateway.access). It stands above the decorators that read
    the body: a stranger's body is never parsed.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def checked(*args: Any, **kwargs: Any) -> Any:
            principal, scope = current_principal(), scope_of(request.endpoint)
            audit.enter(principal)
            if not principal.role.covers(role):
                raise Forbidden(f"this needs the role {role.value}")
            if not principal.may_use(scope):
                wanted = f"this needs the scope {scope.value}" if scope else "this needs a key without scopes"
                raise Forbidden(wanted, code="scope_missing")
            return view(*args, **kwargs)

        # The list of a bearer's requirement is free for the roles it needs (OpenAPI 3.1, Security Requirement).
        security = [{"bearer": [role.value]}]
        documented: View = Blueprint.doc(security=security)(Blueprint.errors(401, 403)(checked))
        return documented

    return decorate


def _bearer_token() -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("send Authorization: Bearer with an API key or a token from POST /api/v1/auth/token")
    return token.strip()
