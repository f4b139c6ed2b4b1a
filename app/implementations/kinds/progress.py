"""How a child process that does not train says how far it is."""

import time

from app.core.interfaces.components import Reporter, TrainingStopped

SECONDS = 0.5  # between two words


class Progress:
    """Reports what is done of a whole, twice a second; raises ``TrainingStopped`` once it is to stop."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._next = 0.0

    def __call__(self, done: int, total: int) -> None:
        if self._report.should_stop():
            raise TrainingStopped
        if done == total or time.monotonic() >= self._next:
            self._next = time.monotonic() + SECONDS
            self._report.metrics(done, total, {})

    def of_step(self, _what: str, done: int, total: int) -> None:
        """Report rows done by one step of a pipeline or an inspection."""
        self(done, total)
