"""What requests used: one row each, and sums of them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from app.core.entities.identity import Principal
from app.core.entities.usage import Usage, UsagePage
from app.core.errors import AppError
from app.core.interfaces.operations import UsageLog
from app.core.interfaces.services.answers import UsageReports
from app.core.interfaces.storage import UsageRepository
from app.core.services.answers.targets import Target
from app.core.services.people.rates import RateService

DAYS = 30  # that sums are of, where nobody says since when
CLIENT_GONE = "client_gone"  # the code of an answer that nobody waited for


@dataclass(slots=True)
class Meter:
    """What is known of a request so far; whoever answers it fills this in."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str | None = None
    first_token_seconds: float | None = None
    _started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def first_token(self) -> None:
        """Now; again, it does nothing."""
        if self.first_token_seconds is None:
            self.first_token_seconds = self.seconds


@contextmanager
def metered(log: UsageLog, rates: RateService, principal: Principal, target: Target) -> Iterator[Meter]:
    """One request to ``target``: it leaves its row when the block ends, however it ends, and spends its tokens.

    In a generator that is closed before its end, as a stream is whose client goes away, too. One that failed
    before its first token spends none.
    """
    meter = Meter()
    error: str | None = None
    try:
        yield meter
    except AppError as failure:
        error = failure.code
        raise
    except GeneratorExit:
        error = None if meter.finish_reason else CLIENT_GONE  # at its end already, a reader may stop
        raise
    except BaseException:
        error = AppError.default_code
        raise
    finally:
        if meter.completion_tokens or error in (None, CLIENT_GONE):
            rates.spend(principal, meter.prompt_tokens + meter.completion_tokens)
        log.record(
            Usage(
                project_id=principal.project_id,
                caller=principal.user_id,
                model=target.name,
                version_id=target.version_id,
                base_model=target.base_model,
                prompt_tokens=meter.prompt_tokens,
                completion_tokens=meter.completion_tokens,
                first_token_seconds=meter.first_token_seconds,
                seconds=meter.seconds,
                finish_reason=None if error else meter.finish_reason,
                error=error,
                created_at=datetime.now(UTC),
            )
        )


class UsageService(UsageReports):
    def __init__(self, repository: UsageRepository) -> None:
        self._repository = repository

    def sums(
        self,
        principal: Principal,
        *,
        by: Literal["model", "day"],
        first: date | None = None,
        last: date | None = None,
        model: str | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> UsagePage:
        last = last or datetime.now(UTC).date()
        first = first or last - timedelta(days=DAYS - 1)
        found = self._repository.sums(principal.project_id, by, first, last, model)
        # Sorted here and not in the database, whose collation may sort by another alphabet.
        found = sorted(found, key=lambda found: found.key, reverse=by == "day")
        if after is not None:
            found = [one for one in found if (one.key < after if by == "day" else one.key > after)]
        return UsagePage(found[:limit], found[limit - 1].key if len(found) > limit else None)
