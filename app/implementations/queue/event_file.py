"""Reads a trainer's events.ndjson as it grows."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from app.core.entities.jobs import JobEvent

MOST_BYTES = 1024 * 1024  # read at once, some 4,000 events: what an outage has left is not one transaction


class EventFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_to = 0

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


def _event(line: Mapping[str, Any]) -> JobEvent:
    return JobEvent(
        seq=line["seq"],
        type=line["type"],
        level=line["level"],
        message=line["message"],
        created_at=datetime.fromisoformat(line["created_at"]),
        data=line["data"],
    )
