"""How often: a user over all routes, an address at the log-in."""

import math
import time

from flask import Flask, Response, request
from flask_limiter import Limiter, RequestLimit

from app.core.errors import Unauthorized
from app.gateway.authentication import current_principal


def init_limits(
    app: Flask, *, rate_limit: str, login_rate_limit: str, login_endpoint: str, redis_url: str | None
) -> None:
    """Call it once the routes are registered. Without Redis each web process counts for itself.

    While Redis does not answer, each counts for itself too: a lost counter is better than a lost service.
    """
    limiter = Limiter(
        _caller,
        app=app,
        application_limits=[rate_limit],
        storage_uri=redis_url or "memory://",
        storage_options={"socket_connect_timeout": 1, "socket_timeout": 1} if redis_url else {},
        strategy="sliding-window-counter",
        in_memory_fallback_enabled=redis_url is not None,
    )
    limiter.request_filter(lambda: not request.path.startswith(("/api/", "/v1/")))  # probes, docs, metrics
    limiter.request_filter(lambda: request.path.startswith("/api/v1/monitor/"))
    login = limiter.limit(login_rate_limit, key_func=_address)
    app.view_functions[login_endpoint] = login(app.view_functions[login_endpoint])

    @app.after_request
    def say(response: Response) -> Response:
        """draft-ietf-httpapi-ratelimit-headers, and Retry-After (RFC 9110 § 10.2.3) on a refusal."""
        if limit := limiter.current_limit:
            wait = max(1, math.ceil(limit.reset_at - time.time()))
            response.headers["RateLimit-Policy"] = (
                f'"{_name(limit)}";q={limit.limit.amount};w={limit.limit.get_expiry()}'
            )
            response.headers["RateLimit"] = f'"{_name(limit)}";r={limit.remaining};t={wait}'
            if response.status_code == 429:
                response.headers.setdefault("Retry-After", str(wait))  # an engine that is busy has said its own
        return response


def _caller() -> str:
    try:
        return f"user {current_principal().user_id}"
    except Unauthorized:
        return _address()


def _address() -> str:
    return f"address {request.remote_addr}"


def _name(limit: RequestLimit) -> str:
    return "user" if limit.shared else "login"
