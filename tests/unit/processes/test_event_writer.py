"""events.ndjson when the disk has no room for a line, or for a part of it only."""

import json
import os
import threading
from pathlib import Path

from app.processes.trainer import EventWriter
from tests.small_disk import FileSizeLimit


def test_events_wait_for_room_and_no_line_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    rung, ring = os.pipe()
    writer = EventWriter(path, ring, threading.Event())
    writer.message("before")
    with FileSizeLimit(tmp_path / "disk") as disk:
        disk.fill(path.stat().st_size + 10)
        for step in range(1, 4):
            writer.metrics(step, 4, {"loss": 1.0})
        assert path.read_bytes().count(b"\n") == 1
        disk.clear()
        writer.metrics(4, 4, {"loss": 1.0})

    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5]
    assert [event["data"].get("step") for event in events] == [None, 1, 2, 3, 4]
    writer._file.close()
    os.close(ring)
    os.close(rung)
