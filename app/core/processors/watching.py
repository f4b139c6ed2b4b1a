"""Loops over rows that say how far they are and how fast they went."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, MutableMapping
from typing import TypeVar

from app.core.interfaces.components import RowProgress

T = TypeVar("T")
_EVERY = 1000  # rows


def watched(
    name: str,
    items: Iterable[T],
    total: int,
    on_progress: RowProgress,
    rates: MutableMapping[str, float] | None = None,
) -> Iterator[T]:
    """``items``; every thousand and at the end a call of ``on_progress``, and then the rate into ``rates``."""
    started = time.perf_counter()
    for done, item in enumerate(items, start=1):
        yield item
        if done % _EVERY == 0 or done == total:
            on_progress(name, done, total)
    if rates is not None:
        rates[name] = total / max(time.perf_counter() - started, 1e-9)
