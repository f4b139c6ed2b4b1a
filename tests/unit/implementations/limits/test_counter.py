"""Windows in Redis, or in each process; what a window says of the time to wait."""

import time

import pytest

from app.core.entities.identity import Principal, Role
from app.core.entities.limits import ProjectLimits, Rate, Reading, Window
from app.core.errors import TooMany
from app.implementations.limits.counter import WindowCounter, read_rates
from tests.rates import AlikeLimits, a_minute

ASKER = Principal("u1", "ada", "default", Role.DEVELOPER)


def test_processes_share_a_redis(redis_server):
    redis_server.flush()
    first, second = (a_minute(requests=2, tokens=10, redis_url=redis_server.url) for _ in range(2))
    readings = [rates.count(ASKER, "")[0] for rates in (first, second, first)]
    assert [(one.remaining, one.is_refused) for one in readings] == [(1, False), (0, False), (0, True)]
    first.spend(ASKER, 25)  # beyond what there is: what has been answered has been answered
    with pytest.raises(TooMany) as caught:
        second.admit(ASKER)
    assert caught.value.code == "tokens_used_up"
    assert 60 < caught.value.retry_after <= 120


def test_what_is_left_is_asked_of_a_redis_not_each_time(redis_server, monkeypatch):
    redis_server.flush()
    first, second = (WindowCounter(redis_server.url) for _ in range(2))
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    first.add("k", 60, 5)
    assert [counter.window("k", 60).taken for counter in (first, second)] == [5, 5]
    first.add("k", 60, 2)
    assert [counter.window("k", 60).taken for counter in (first, second)] == [7, 5]
    assert not second.take("k", 60, 7)
    assert second.window("k", 60).taken == 7
    second.add("k", 60, 1)
    now += 0.3
    assert first.window("k", 60).taken == 8


def test_attempts_are_forgiven_in_a_redis(redis_server):
    redis_server.flush()
    first, second = (a_minute(attempts=1, redis_url=redis_server.url) for _ in range(2))
    first.attempt("ada")
    with pytest.raises(TooMany):
        second.attempt("ada")
    second.forgive("ada")
    first.attempt("ada")


def test_without_its_redis_it_counts_by_itself():
    counter = WindowCounter("redis://127.0.0.1:1/0")
    assert [counter.take("k", 60, 2) for _ in range(3)] == [True, True, False]


def test_tokens_are_those_of_all_of_a_project():
    rates = a_minute(limits=AlikeLimits(ProjectLimits(tokens=100)))
    rates.admit(ASKER)
    rates.spend(Principal("u2", "bob", "default", Role.VIEWER, key_id="key-1"), 100)
    with pytest.raises(TooMany, match="project-tokens"):
        rates.admit(ASKER)
    rates.admit(Principal("u1", "ada", "other", Role.VIEWER))


def test_a_key_counts_for_itself():
    rates = a_minute(requests=1)
    of_keys = [Principal("u1", "ada", "default", Role.VIEWER, key_id=f"key-{n}") for n in range(2)]
    assert [rates.count(caller, "")[0].is_refused for caller in (*of_keys, ASKER)] == [False] * 3
    [reading] = rates.count(of_keys[0], "")
    assert (reading.rate.name, reading.is_refused) == ("key", True)


@pytest.mark.parametrize(
    ("window", "cost", "wait"),
    [
        (Window(60, 0, 0, 0, 0), 10, 0),
        (Window(60, 10, 30, 5, 30), 1, 6),  # 10 are used: a tenth of ten is gone in six seconds
        (Window(60, 0, 0, 10, 30), 1, 36),
        (Window(60, 0, 0, 10, 30), 99, 90),  # never more than there are
    ],
)
def test_how_long_to_wait(window, cost, wait):
    assert window.wait(10, cost) == pytest.approx(wait)


def test_a_reading_of_what_is_left():
    reading = Reading.of(Rate("key", 10, 60), Window(60, 3, 30, 5, 30))
    assert (reading.remaining, reading.wait) == (4, 30)


def test_rates_are_read():
    assert read_rates("10 per second; 600 per minute", "r") == [Rate("r", 10, 1), Rate("r", 600, 60)]
