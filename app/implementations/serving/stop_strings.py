"""Texts that end an answer, found across the pieces in which it comes."""

from collections.abc import Sequence


class StopStrings:
    """Text that may be the beginning of a stop waits until that is certain."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """What is now certain to be part of the answer: nothing after a stop was found, nor the stop itself."""
        if self.found is not None:
            return ""
        text = self._held + text
        places = [(place, -len(stop), stop) for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            place, _, self.found = min(places)
            self._held = ""
            return text[:place]
        self._held = text[len(text) - self._possible(text) :]
        return text[: len(text) - len(self._held)]

    def finish(self) -> str:
        """What was held back, now that no more comes."""
        held, self._held = self._held, ""
        return held

    def _possible(self, text: str) -> int:
        """Characters at the end that a stop may begin with."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        lengths = range(min(longest, len(text)), 0, -1)
        return next((n for n in lengths if any(stop.startswith(text[-n:]) for stop in self._stops)), 0)
