"""Sliding windows of the ``limits`` library, in Redis or in this process."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
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
KNOWN_SECONDS = 0.2  # that what Redis said of a window is taken for true, with what this process adds to it
MOST_KNOWN = 10_000


class WindowCounter(RateCounter):
    """While Redis does not answer each process counts for itself: a lost counter is better than a lost service.

    What is taken is always asked of Redis; what is left, for a header or before a request, not each time.
    """

    def __init__(self, redis_url: str | None) -> None:
        self._own = MemoryStorage()
        self._shared = redis_url and RedisStorage(
            redis_url, socket_connect_timeout=PATIENCE_SECONDS, socket_timeout=PATIENCE_SECONDS
        )
        self._away_until = 0.0
        self._known: dict[str, tuple[float, Window]] = {}  # until when

    def take(self, key: str, seconds: int, most: int) -> bool:
        is_taken = self._ask(lambda storage: storage.acquire_sliding_window_entry(key, most, seconds, 1))
        if is_taken:
            self._count(key, 1)
        else:
            self._known.pop(key, None)
        return is_taken

    def add(self, key: str, seconds: int, cost: int) -> None:
        self._ask(lambda storage: storage.acquire_sliding_window_entry(key, ANY, seconds, cost))
        self._count(key, cost)

    def window(self, key: str, seconds: int) -> Window:
        until, known = self._known.get(key, (0.0, None))
        if known is not None and time.monotonic() < until:
            return known
        before, before_ends_in, taken, kept_for = self._ask(
            lambda storage: storage.get_sliding_window(key, seconds)
        )
        window = Window(seconds, before, before_ends_in, taken, max(0.0, kept_for - seconds))
        if self._shared:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[key] = time.monotonic() + KNOWN_SECONDS, window
        return window

    def forget(self, key: str, seconds: int) -> None:
        self._ask(lambda storage: storage.clear_sliding_window(key, seconds))
        self._known.pop(key, None)

    def _count(self, key: str, cost: int) -> None:
        if known := self._known.get(key):  # another thread may clear them between
            until, window = known
            self._known[key] = until, replace(window, taken=window.taken + cost)

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
