"""Sliding windows of the ``limits`` library, in Redis or in this process."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from limits import parse_many
from limits.storage import MemoryStorage, RedisStorage
from redis.exceptions import RedisError

from app.core.entities.limits import Rate, Window
from app.core.interfaces.operations import RateCounter

log = logging.getLogger(__name__)

T = TypeVar("T")
Storage = MemoryStorage | RedisStorage
ANY = 2**53  # Lua counts in doubles
AWAY_SECONDS = 5.0  # that a Redis which did not answer is left alone
PATIENCE_SECONDS = 1


class WindowCounter(RateCounter):
    """While Redis does not answer each process counts for itself: a lost counter is better than a lost service."""

    def __init__(self, redis_url: str | None) -> None:
        self._own = MemoryStorage()
        self._shared = redis_url and RedisStorage(
            redis_url, socket_connect_timeout=PATIENCE_SECONDS, socket_timeout=PATIENCE_SECONDS
        )
        self._away_until = 0.0

    def take(self, key: str, seconds: int, most: int) -> bool:
        return self._ask(lambda storage: storage.acquire_sliding_window_entry(key, most, seconds, 1))

    def add(self, key: str, seconds: int, cost: int) -> None:
        self._ask(lambda storage: storage.acquire_sliding_window_entry(key, ANY, seconds, cost))

    def window(self, key: str, seconds: int) -> Window:
        before, before_ends_in, taken, kept_for = self._ask(
            lambda storage: storage.get_sliding_window(key, seconds)
        )
        return Window(seconds, before, before_ends_in, taken, max(0.0, kept_for - seconds))

    def forget(self, key: str, seconds: int) -> None:
        self._ask(lambda storage: storage.clear_sliding_window(key, seconds))

    def _ask(self, question: Callable[[Storage], T]) -> T:
        if self._shared and time.monotonic() >= self._away_until:
            try:
                return question(self._shared)
            except RedisError:
                self._away_until = time.monotonic() + AWAY_SECONDS
                log.warning("Redis does not answer: this process counts requests for itself")
        return question(self._own)


def read_rates(text: str, name: str) -> Sequence[Rate]:
    """``600 per minute``, or several with semicolons between them."""
    return [Rate(name, item.amount, item.get_expiry()) for item in parse_many(text)]
