"""Rates that are out of the way, but for the one that a test is about."""

from app.core.entities.identity import Principal
from app.core.entities.limits import ProjectLimits, Rate
from app.core.services.people.limits import LimitService
from app.core.services.people.rates import RateService, ServiceRates
from app.implementations.limits.counter import WindowCounter

MANY = 10**6


class AlikeLimits(LimitService):
    """The same for every project."""

    def __init__(self, limits: ProjectLimits) -> None:
        self._limits = limits

    def recent(self, principal: Principal) -> ProjectLimits:
        return self._limits


def a_minute(
    *,
    requests: int = MANY,
    tokens: int = MANY,
    log_ins: int = MANY,
    attempts: int = MANY,
    limits: LimitService | None = None,
    redis_url: str | None = None,
) -> RateService:
    amounts = {"requests": requests, "tokens": tokens, "log_ins": log_ins, "attempts": attempts}
    rates = {name: [Rate(name, amount, 60)] for name, amount in amounts.items()}
    rates["log_ins"] = [Rate("login", log_ins, 60)]
    limits = limits or AlikeLimits(ProjectLimits())
    return RateService(WindowCounter(redis_url), limits, ServiceRates(**rates))
