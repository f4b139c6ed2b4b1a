"""A tracker at work beside the run."""

import logging
from collections.abc import Callable
from queue import Full, Queue
from threading import Thread

from app.core.interfaces.components import Tracker, TrainerJob

QUEUE_LENGTH = 10_000  # calls; a tracker that is further behind does not come back

log = logging.getLogger(__name__)


class Follower:
    """Calls a tracker in a thread of its own: a server that is slow or hangs costs no step.

    ``problem`` is what went wrong, once something has; the tracker is not called again.
    """

    def __init__(self, name: str, tracker: Tracker, job: TrainerJob) -> None:
        self.name = name
        self.tracker = tracker
        self.problem: str | None = None
        self._calls: Queue[Callable[[], None] | None] = Queue(QUEUE_LENGTH)
        self._thread = Thread(target=self._work, args=(job,), name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def send(self, call: Callable[[], None]) -> None:
        """``call`` is made in its turn. Never waits and never raises."""
        self._put(call)

    def finish(self, succeeded: bool) -> None:
        """The last call."""
        self._put(lambda: self.tracker.finish(succeeded))
        self._put(None)

    def join(self, seconds: float) -> None:
        """Until it has written everything, at most so long."""
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            self._fail("did not finish in time: its record may lack the end")

    def _put(self, call: Callable[[], None] | None) -> None:
        try:
            self._calls.put_nowait(call)
        except Full:
            self._fail("does not keep up and is left out")

    def _work(self, job: TrainerJob) -> None:
        try:
            self.tracker.start(job)
            while (call := self._calls.get()) is not None:
                call()
        except Exception as error:  # whatever fails there, the run goes on
            log.warning("%s failed", self.name, exc_info=True)  # to logs.txt; the client sees no exception's text
            self._fail(f"failed ({type(error).__name__}) and is left out; see the run's logs.txt")

    def _fail(self, what: str) -> None:
        self.problem = self.problem or f"report_to: {self.name} {what}"
