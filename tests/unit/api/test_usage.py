"""Sums of usage over HTTP."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.core.entities.usage import Usage

DAY = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROW = Usage("default", "u1", "support:1", "v1", "tiny", 10, 5, 0.25, 0.5, "stop", None, DAY)
MARCH = "from=2026-03-01&to=2026-03-31"


def test_sums(caller, twins):
    twins.usage.add([ROW, replace(ROW, model="tiny", error="engine_busy", created_at=DAY + timedelta(days=1))])
    page = caller("GET", f"/api/v1/usage?{MARCH}&limit=1").json
    assert page == {
        "data": [
            {
                "key": "support:1",
                "requests": 1,
                "failed": 0,
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "mean_seconds": 0.5,
                "mean_first_token_seconds": 0.25,
            }
        ],
        "next": "support:1",
    }
    rest = caller("GET", f"/api/v1/usage?{MARCH}&limit=1&after={page['next']}").json
    assert ([one["key"] for one in rest["data"]], rest["next"]) == (["tiny"], None)
    days = caller("GET", f"/api/v1/usage?{MARCH}&by=day&model=tiny").json["data"]
    assert [(one["key"], one["failed"]) for one in days] == [("2026-03-02", 1)]
    assert caller("GET", "/api/v1/usage?to=2026-02-28").json == {"data": [], "next": None}


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("by=hour", ["by"]),
        ("from=yesterday&to=2026-13-01&limit=0", ["from", "limit", "to"]),
        ("from=2026-03-02&to=2026-03-01", ["to"]),
        ("since=2026-03-02", ["since"]),
    ],
)
def test_queries_with_faults(caller, query, where):
    answer = caller("GET", f"/api/v1/usage?{query}")
    assert answer.status_code == 422
    assert sorted(fault["where"] for fault in answer.json["errors"]) == where
