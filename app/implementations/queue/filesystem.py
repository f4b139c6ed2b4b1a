"""Celery's filesystem broker with messages that appear, and are taken, whole.

kombu's channel writes a message in place, and a reader that meets half of one ends its worker; here a message
is a temporary file that is renamed into the folder, and a reader takes it by renaming it out (one wins).
"""

import time
import uuid
from contextlib import suppress
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import filesystem
from kombu.utils.json import dumps, loads


class Channel(filesystem.Channel):
    def _put(self, queue: str, payload: dict[str, Any], **_: Any) -> None:
        folder = Path(self.data_folder_out)
        # The name's order is the order of arrival, across processes; its tail says which queue.
        name = f"{time.time_ns():020d}_{uuid.uuid4().hex}.{queue}.msg"
        temporary = folder / f".{name}.new"
        temporary.write_text(dumps(payload), encoding="utf-8")
        temporary.replace(folder / name)

    def _get(self, queue: str) -> dict[str, Any]:
        """``Empty`` also while the folder is gone or cannot be read: that costs doorbells, not the worker."""
        try:
            payload = self._take(queue)
        except OSError:
            payload = None
        if payload is None:
            raise Empty
        return payload

    def _take(self, queue: str) -> dict[str, Any] | None:
        folder = Path(self.data_folder_in)
        waiting = (path.name for path in folder.iterdir() if path.name.partition(".")[2] == f"{queue}.msg")
        for name in sorted(waiting):
            taken = folder / f".{name}.{uuid.uuid4().hex}.taken"
            with suppress(FileNotFoundError):  # another reader was faster
                (folder / name).rename(taken)
                payload: dict[str, Any] = loads(taken.read_text("utf-8"))
                taken.unlink()
                return payload
        return None


class Transport(filesystem.Transport):
    Channel = Channel
