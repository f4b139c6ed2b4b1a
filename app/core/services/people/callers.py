"""Who was found behind a token or a key, for half a second."""

import time

from app.core.entities.identity import Principal

SECONDS = 0.5  # a key that is revoked fails in every web process within a second
MOST = 10_000


class RecentCallers:
    """A busy caller costs two looks into the database a second, not one for each request.

    What this process itself changes it forgets at once; what another changes it sees when the time is over.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, Principal]] = {}

    def get(self, digest: str) -> Principal | None:
        until, principal = self._known.get(digest, (0.0, None))
        return principal if time.monotonic() < until else None

    def keep(self, digest: str, principal: Principal, looked_up_at: float) -> None:
        """``looked_up_at`` is the time before the look: what was revoked since then is not kept longer for it."""
        if len(self._known) >= MOST:
            self._known.clear()
        self._known[digest] = looked_up_at + SECONDS, principal

    def forget(self) -> None:
        self._known.clear()
