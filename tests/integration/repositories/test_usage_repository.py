"""What every UsageRepository does."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from app.core.entities.usage import Usage, UsageSum

LATE = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
ROW = Usage("default", "u1", "support:1", "v1", "tiny", 10, 5, None, 0.5, "stop", None, LATE)
MARCH = (date(2026, 3, 1), date(2026, 3, 31))


@pytest.fixture
def usage(repositories):
    return repositories.usage


def by_key(found):
    return {one.key: one for one in found}


def test_sums_by_model_and_by_day(usage):
    usage.add(
        [
            ROW,
            replace(ROW, seconds=1.5, first_token_seconds=0.25, created_at=LATE + timedelta(hours=1)),
            replace(
                ROW, model="tiny", version_id=None, completion_tokens=0, finish_reason=None, error="engine_busy"
            ),
        ]
    )
    assert by_key(usage.sums("default", "model", *MARCH)) == {
        "support:1": UsageSum("support:1", 2, 0, 20, 10, 1.0, 0.25),
        "tiny": UsageSum("tiny", 1, 1, 10, 0, 0.5, None),
    }
    assert by_key(usage.sums("default", "day", *MARCH)) == {
        "2026-03-01": UsageSum("2026-03-01", 2, 1, 20, 5, 0.5, None),
        "2026-03-02": UsageSum("2026-03-02", 1, 0, 10, 5, 1.5, 0.25),
    }
    assert set(by_key(usage.sums("default", "day", *MARCH, "tiny"))) == {"2026-03-01"}


def test_the_first_and_the_last_day_count(usage):
    usage.add([replace(ROW, created_at=LATE + timedelta(days=n)) for n in range(5)])
    found = usage.sums("default", "day", date(2026, 3, 2), date(2026, 3, 4))
    assert sorted(by_key(found)) == ["2026-03-02", "2026-03-03", "2026-03-04"]
    assert usage.sums("default", "day", date(2026, 3, 4), date(2026, 3, 2)) == []


def test_sums_are_a_projects_own(usage):
    usage.add([ROW, replace(ROW, project_id="other", prompt_tokens=99)])
    assert [one.prompt_tokens for one in usage.sums("default", "model", *MARCH)] == [10]
    assert [one.prompt_tokens for one in usage.sums("other", "model", *MARCH)] == [99]


def test_many_rows_at_once(usage):
    usage.add([ROW] * 10_000)
    assert usage.sums("default", "model", *MARCH) == [UsageSum("support:1", 10_000, 0, 100_000, 50_000, 0.5, None)]
