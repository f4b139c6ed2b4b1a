"""What every repository of requests under a key does."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.core.entities.idempotency import KeptAnswer, KeptRequest

NOW = datetime(2026, 3, 3, tzinfo=UTC)
REQUEST = KeptRequest("r1", "default", "body", "me", NOW + timedelta(seconds=60))
ANSWER = KeptAnswer(201, {"Content-Type": "application/json"}, '{"id": "é"}')
DONE = replace(REQUEST, answer=ANSWER, expires_at=NOW + timedelta(days=1))


@pytest.fixture
def kept(repositories):
    return repositories.kept_requests


def test_the_first_is_kept_and_the_next_is_told(kept):
    assert kept.begin(REQUEST, NOW) is None
    assert kept.begin(replace(REQUEST, holder="another"), NOW) == REQUEST
    kept.keep(DONE)
    assert kept.begin(replace(REQUEST, holder="another", fingerprint="other"), NOW) == DONE
    assert kept.begin(replace(REQUEST, id="r2"), NOW) is None


def test_an_answer_with_a_secret_has_no_body(kept):
    kept.begin(REQUEST, NOW)
    done = replace(DONE, answer=replace(ANSWER, body=None))
    kept.keep(done)
    assert kept.begin(REQUEST, NOW) == done


def test_what_is_released_may_be_done_again(kept):
    kept.begin(REQUEST, NOW)
    kept.release(REQUEST)
    assert kept.begin(REQUEST, NOW) is None


def test_a_lease_that_has_ended_holds_nothing(kept):
    """The process was killed, or was so slow that another took over: then its word is not heard."""
    kept.begin(REQUEST, NOW)
    later = NOW + timedelta(seconds=60)
    taken = replace(REQUEST, holder="another", expires_at=later + timedelta(seconds=60))
    assert kept.begin(taken, later) is None
    kept.keep(DONE)
    kept.release(REQUEST)
    assert kept.begin(REQUEST, later) == taken


def test_of_many_at_once_one_begins(kept):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: kept.begin(replace(REQUEST, holder=str(n)), NOW), range(8)))
    assert found.count(None) == 1
    assert {one.id for one in found if one} == {"r1"}


def test_of_many_at_once_one_takes_over(kept):
    kept.begin(REQUEST, NOW)
    later = NOW + timedelta(seconds=61)
    until = later + timedelta(seconds=60)
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda n: kept.begin(replace(REQUEST, holder=str(n), expires_at=until), later), range(8))
        )
    assert found.count(None) == 1
