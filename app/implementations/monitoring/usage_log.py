"""Usage rows, written in batches beside the requests."""

import atexit
import logging
import threading
from collections import deque

from prometheus_client import Counter

from app.core.entities.usage import Usage
from app.core.errors import Unavailable
from app.core.interfaces.operations import UsageLog
from app.core.interfaces.storage import UsageRepository

logger = logging.getLogger(__name__)

MOST_WAITING = 10_000  # some megabytes
FLUSH_SECONDS = 1.0
_dropped_rows = Counter("usage_rows_dropped", "Usage rows that found no place while the database was away")


class BatchedUsageLog(UsageLog):
    """One writer thread a process, which begins with the first row: a process that forks has none yet.

    What waits is written each second and when the process ends, as one does that gunicorn tells to stop; one that
    is killed loses a second's rows. While the database is away they wait, and the oldest go first.
    """

    def __init__(
        self, repository: UsageRepository, seconds: float = FLUSH_SECONDS, most_waiting: int = MOST_WAITING
    ) -> None:
        self._repository = repository
        self._seconds = seconds
        self._most_waiting = most_waiting
        self._lock = threading.Lock()
        self._writing = threading.Lock()  # one batch at a time: of two, the later would be older
        self._waiting: deque[Usage] = deque()
        self._dropped = 0  # since the last line of the log about it
        self._ended = threading.Event()
        self._writer: threading.Thread | None = None

    def record(self, usage: Usage) -> None:
        with self._lock:
            self._waiting.append(usage)
            self._drop_oldest()
            if self._writer is None:
                self._writer = threading.Thread(target=self._write, name="usage", daemon=True)
                self._writer.start()
                atexit.register(self.close)

    def close(self) -> None:
        """Write what waits; afterwards nothing is."""
        self._ended.set()
        self.flush()
        if self._waiting:
            logger.error("usage: the database is away; %d rows are lost", len(self._waiting))

    def flush(self) -> None:
        with self._writing:
            with self._lock:
                batch, self._waiting = self._waiting, deque()
                dropped, self._dropped = self._dropped, 0
            if dropped:
                logger.warning("usage: too many rows waited; %d of the oldest were dropped", dropped)
            if not batch:
                return
            try:
                self._repository.add(batch)
            except Unavailable as error:
                logger.warning("usage: %d rows wait: %s", len(batch), error.message)
                with self._lock:
                    self._waiting.extendleft(reversed(batch))
                    self._drop_oldest()
            except Exception:  # would come again with these rows
                logger.exception("usage: %d rows cannot be written", len(batch))

    def _write(self) -> None:
        while not self._ended.wait(self._seconds):
            self.flush()

    def _drop_oldest(self) -> None:
        while len(self._waiting) > self._most_waiting:
            self._waiting.popleft()
            self._dropped += 1
            _dropped_rows.inc()
