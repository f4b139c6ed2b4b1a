"""Who was found behind a token or a key, for half a second."""

from contextlib import suppress
from threading import Lock

from cachetools import TLRUCache

from app.core.entities.identity import Principal

SECONDS = 0.5  # a key that is revoked fails in every web process within a second
MOST = 10_000


class RecentCallers:
    """A busy caller costs two looks into the database a second, not one for each request.

    What this process itself changes it forgets at once; what another changes it sees when the time is over.
    """

    def __init__(self) -> None:
        self._known = TLRUCache[str, tuple[float, Principal]](MOST, lambda digest, kept, now: kept[0] + SECONDS)
        self._lock = Lock()

    def get(self, digest: str) -> Principal | None:
        with self._lock, suppress(KeyError):  # the cache's own ``get`` looks twice: 4 µs, not 2
            return self._known[digest][1]
        return None

    def keep(self, digest: str, principal: Principal, looked_up_at: float) -> None:
        """``looked_up_at`` is the time before the look: what was revoked since then is not kept longer for it."""
        with self._lock:
            self._known[digest] = looked_up_at, principal

    def forget(self) -> None:
        with self._lock:
            self._known.clear()
