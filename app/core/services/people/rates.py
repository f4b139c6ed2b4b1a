"""How often one may ask, and for how many tokens: by key or user, by project, by address, by account."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.core.entities.api_keys import digest_of
from app.core.entities.identity import Principal
from app.core.entities.limits import Rate, Reading
from app.core.errors import TooMany
from app.core.interfaces.operations import RateCounter
from app.core.interfaces.services.people import Rates
from app.core.services.people.limits import LimitService

MINUTE = 60


@dataclass(frozen=True, slots=True)
class ServiceRates:
    """The same for everybody; a project's own are among its limits."""

    requests: Sequence[Rate]  # of one caller: an API key, a user, or a stranger's address
    tokens: Sequence[Rate]  # of one caller
    log_ins: Sequence[Rate]  # from one address
    attempts: Sequence[Rate]  # at one account, from anywhere


class RateService(Rates):
    def __init__(self, counter: RateCounter, limits: LimitService, rates: ServiceRates) -> None:
        self._counter = counter
        self._limits = limits
        self._rates = rates

    def count(self, caller: Principal | None, address: str) -> Sequence[Reading]:
        if caller is None:
            return self._take("requests", [(rate, address) for rate in _named("address", self._rates.requests)])
        most = self._limits.recent(caller).requests
        return self._take("requests", _counts(caller, self._rates.requests, most))

    def count_log_in(self, address: str) -> Sequence[Reading]:
        return self._take("log-ins", [(rate, address) for rate in self._rates.log_ins])

    def attempt(self, username: str) -> None:
        readings = self._take("attempts", self._of_account(username))
        if waits := [reading.wait for reading in readings if reading.is_refused]:
            message = "too many log-ins for this account: wait for as many seconds as Retry-After says"
            raise TooMany(message, code="too_many_attempts", retry_after=max(waits))

    def forgive(self, username: str) -> None:
        for rate, account in self._of_account(username):
            self._counter.forget(_key("attempts", rate, account), rate.seconds)

    def tokens(self, caller: Principal) -> Sequence[Reading]:
        return [
            Reading.of(rate, self._counter.window(_key("tokens", rate, who), rate.seconds))
            for rate, who in self._of_tokens(caller)
        ]

    def admit(self, caller: Principal) -> None:
        used_up = [reading for reading in self.tokens(caller) if not reading.remaining]
        if used_up:
            rate = used_up[0].rate
            message = f"the {rate.amount:,} tokens of {rate.seconds} seconds are used up ({rate.name})"
            raise TooMany(message, code="tokens_used_up", retry_after=max(reading.wait for reading in used_up))

    def spend(self, caller: Principal, tokens: int) -> None:
        for rate, who in self._of_tokens(caller) if tokens else ():
            self._counter.add(_key("tokens", rate, who), rate.seconds, tokens)

    def _of_tokens(self, caller: Principal) -> Sequence[tuple[Rate, str]]:
        counts = _counts(caller, self._rates.tokens, self._limits.recent(caller).tokens)
        return [(replace(rate, name=f"{rate.name}-tokens"), who) for rate, who in counts]

    def _of_account(self, username: str) -> Sequence[tuple[Rate, str]]:
        return [(rate, digest_of(username)) for rate in self._rates.attempts]

    def _take(self, what: str, counts: Sequence[tuple[Rate, str]]) -> Sequence[Reading]:
        readings: list[Reading] = []
        for rate, who in counts:
            key = _key(what, rate, who)
            is_refused = not self._counter.take(key, rate.seconds, rate.amount)
            readings.append(Reading.of(rate, self._counter.window(key, rate.seconds), is_refused))
            if is_refused:  # it takes nothing of what others share
                break
        return readings


def _counts(caller: Principal, own: Sequence[Rate], of_project: int | None) -> Sequence[tuple[Rate, str]]:
    name, who = ("key", caller.key_id) if caller.key_id else ("user", caller.user_id)
    counts = [(rate, who) for rate in _named(name, own)]
    if of_project is not None:
        counts.append((Rate("project", of_project, MINUTE), caller.project_id))
    return counts


def _named(name: str, rates: Sequence[Rate]) -> Sequence[Rate]:
    """Where there are several, each with the length of its window."""
    return [replace(rate, name=name if len(rates) == 1 else f"{name}-{rate.seconds}") for rate in rates]


def _key(what: str, rate: Rate, who: str) -> str:
    return f"{what}/{rate.name}/{rate.seconds}/{who}"
