"""One row a request, however it ends; pages of sums."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import pytest
from sqlalchemy import Engine

from app.core.entities.identity import Principal, Role
from app.core.entities.usage import Usage
from app.core.errors import TooMany
from app.core.interfaces.operations import UsageLog
from app.core.services.answers.targets import Target
from app.core.services.answers.usage import UsageService, metered
from app.repositories.usage import SqlUsageRepository
from tests.rates import a_minute

ASKER = Principal("u1", "ada", "default", Role.DEVELOPER)
TARGET = Target("support:1", "tiny", cast("Any", None), version_id="v1")
DAY = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROW = Usage("default", "u1", "support:1", "v1", "tiny", 10, 5, None, 0.5, "stop", None, DAY)


class Kept(UsageLog):
    def __init__(self) -> None:
        self.rows: list[Usage] = []

    def record(self, usage: Usage) -> None:
        self.rows.append(usage)


@pytest.fixture
def log() -> Kept:
    return Kept()


def test_a_stream_that_is_read_to_its_end(log: Kept) -> None:
    with metered(log, a_minute(), ASKER, TARGET) as meter:
        meter.prompt_tokens = 7
        meter.first_token()
        first = meter.first_token_seconds
        meter.first_token()
        meter.completion_tokens, meter.finish_reason = 3, "length"
        assert log.rows == []
    [row] = log.rows
    assert (row.model, row.version_id, row.base_model) == ("support:1", "v1", "tiny")
    assert (row.project_id, row.caller, row.finish_reason, row.error) == ("default", "u1", "length", None)
    assert (row.prompt_tokens, row.completion_tokens, row.first_token_seconds) == (7, 3, first)
    assert first is not None
    assert 0 <= first <= row.seconds


@pytest.mark.parametrize(
    ("failure", "code"), [(TooMany("busy", code="engine_busy"), "engine_busy"), (ValueError(), "internal_error")]
)
def test_a_failure_leaves_its_code_and_goes_on(log: Kept, failure: Exception, code: str) -> None:
    def fail() -> None:
        with metered(log, a_minute(), ASKER, TARGET) as meter:
            meter.finish_reason = "stop"
            raise failure

    with pytest.raises(type(failure)):
        fail()
    assert [(row.error, row.finish_reason) for row in log.rows] == [(code, None)]


def test_a_client_that_goes_away_leaves_what_it_got(log: Kept) -> None:
    def pieces() -> Iterator[str]:
        with metered(log, a_minute(), ASKER, TARGET) as meter:
            for piece in "abc":
                meter.completion_tokens += 1
                yield piece

    stream = pieces()
    assert next(stream) == "a"
    stream.close()  # type: ignore[attr-defined]
    assert [(row.error, row.completion_tokens) for row in log.rows] == [("client_gone", 1)]


def test_a_reader_may_stop_at_the_answers_end(log: Kept) -> None:
    def pieces() -> Iterator[str]:
        with metered(log, a_minute(), ASKER, TARGET) as meter:
            meter.finish_reason = "stop"
            yield "the last"

    stream = pieces()
    assert next(stream) == "the last"
    stream.close()  # type: ignore[attr-defined]
    assert [(row.error, row.finish_reason) for row in log.rows] == [(None, "stop")]


@pytest.fixture
def repository(database: Engine) -> SqlUsageRepository:
    return SqlUsageRepository(database)


@pytest.fixture
def usage(repository: SqlUsageRepository) -> UsageService:
    return UsageService(repository)


def test_pages_by_model_and_by_day(usage: UsageService, repository: SqlUsageRepository) -> None:
    repository.add([replace(ROW, model=f"m:{n}", created_at=DAY + timedelta(days=n)) for n in range(1, 6)])
    span: dict[str, Any] = {"first": date(2026, 3, 1), "last": date(2026, 3, 31)}

    def pages(by: Any) -> list[list[str]]:
        found, after = [], None
        while True:
            page = usage.sums(ASKER, by=by, limit=2, after=after, **span)
            found.append([one.key for one in page.sums])
            if (after := page.next) is None:
                return found

    assert pages("model") == [["m:1", "m:2"], ["m:3", "m:4"], ["m:5"]]
    assert pages("day") == [["2026-03-06", "2026-03-05"], ["2026-03-04", "2026-03-03"], ["2026-03-02"]]
    assert usage.sums(ASKER, by="model", limit=5, **span).next is None


def test_without_days_it_is_the_last_thirty(usage: UsageService, repository: SqlUsageRepository) -> None:
    repository.add([replace(ROW, created_at=DAY - timedelta(days=n)) for n in (0, 29, 30)])
    last = DAY.date()
    assert [one.key for one in usage.sums(ASKER, by="day", last=last).sums] == ["2026-03-01", "2026-01-31"]
    assert usage.sums(ASKER, by="day").sums == []  # these days are past
    assert len(usage.sums(ASKER, by="day", first=date(2026, 1, 30)).sums) == 3


def test_another_projects_requests_do_not_count(usage: UsageService, repository: SqlUsageRepository) -> None:
    repository.add([replace(ROW, project_id="other"), ROW])
    [found] = usage.sums(ASKER, by="model", last=DAY.date()).sums
    assert found.requests == 1
