"""Reads a trainer's events.ndjson as it grows."""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from app.core.entities.jobs import JobEvent

MOST_BYTES = 1024 * 1024  # read at once, some 4,000 events: what an outage has left is not one transaction


class EventFile:
    """``after`` is the number of the last event that is known already: those up to it are not read."""

    def __init__(self, path: Path, after: int = 0) -> None:
        self._path = path
        self._read_to = _start_of_news(path, after) if after else 0

    def read(self) -> Sequence[JobEvent]:
        """The next whole lines, about MOST_BYTES of them at most; none: there is nothing new."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read_to)
                data = file.read(MOST_BYTES)
                if not data.endswith(b"\n"):
                    data += file.readline()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._read_to += len(whole)
        return [_event(json.loads(line)) for line in whole.splitlines()]


def _start_of_news(path: Path, after: int) -> int:
    """Where in the file the first event after that number begins. They stand in order: by bisection."""
    with path.open("rb") as file:
        low, high = 0, file.seek(0, os.SEEK_END)
        while low < high:  # what begins before ``low`` is known, the first line from ``high`` on is not
            middle = (low + high) // 2
            file.seek(max(0, middle - 1))
            if middle:
                file.readline()  # to the first line that begins at the middle or after it
            start, line = file.tell(), file.readline()
            if line.endswith(b"\n") and json.loads(line)["seq"] <= after:
                low = start + len(line)
            else:
                high = middle
    return low


def _event(line: Mapping[str, Any]) -> JobEvent:
    return JobEvent(
        seq=line["seq"],
        type=line["type"],
        level=line["level"],
        message=line["message"],
        created_at=datetime.fromisoformat(line["created_at"]),
        data=line["data"],
    )
