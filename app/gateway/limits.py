"""How often: a key or a user and a project over all routes, an address at the log-in; what answers say of it."""

from collections.abc import Sequence

from flask import Flask, Response, g, request

from app.core.entities.identity import Scope
from app.core.entities.limits import Reading
from app.core.errors import TooMany, Unauthorized
from app.extensions import current_services
from app.gateway.access import scope_of
from app.gateway.authentication import current_principal

FREE = "/api/v1/monitor/"
LIMITED = ("/api/", "/v1/")  # and not probes, docs, metrics


def init_limits(app: Flask, *, login_endpoint: str) -> None:
    @app.before_request
    def count() -> None:
        if not request.path.startswith(LIMITED) or request.path.startswith(FREE):
            return
        rates, address = current_services().rates, request.remote_addr or ""
        try:
            caller = current_principal()
        except Unauthorized:
            caller = None
        g.readings = rates.count(caller, address)
        _refuse(g.readings)
        if request.endpoint == login_endpoint:
            g.readings = rates.count_log_in(address)
            _refuse(g.readings)
        g.counts_tokens = caller is not None and scope_of(request.endpoint) is Scope.INFER

    @app.after_request
    def say(response: Response) -> Response:
        """draft-ietf-httpapi-ratelimit-headers, and OpenAI's own under /v1."""
        requests: Sequence[Reading] = g.get("readings", ())
        tokens = current_services().rates.tokens(current_principal()) if g.get("counts_tokens") else ()
        if readings := [*requests, *tokens]:
            policy = ", ".join(f'"{one.rate.name}";q={one.rate.amount};w={one.rate.seconds}' for one in readings)
            left = ", ".join(f'"{one.rate.name}";r={one.remaining};t={one.wait}' for one in readings)
            response.headers.extend([("RateLimit-Policy", policy), ("RateLimit", left)])
        if request.path.startswith("/v1/"):
            for unit, of_unit in (("requests", requests), ("tokens", tokens)):
                if of_unit:
                    least = min(of_unit, key=lambda reading: reading.remaining)
                    response.headers.extend(
                        [
                            (f"x-ratelimit-limit-{unit}", str(least.rate.amount)),
                            (f"x-ratelimit-remaining-{unit}", str(least.remaining)),
                            (f"x-ratelimit-reset-{unit}", f"{least.wait}s"),
                        ]
                    )
        return response


def _refuse(readings: Sequence[Reading]) -> None:
    if waits := [reading.wait for reading in readings if reading.is_refused]:
        message = "too many requests: wait for as many seconds as Retry-After says"
        raise TooMany(message, code="rate_limited", retry_after=max(waits))
