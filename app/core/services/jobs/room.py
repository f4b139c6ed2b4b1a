"""What becomes of a write that finds no room on the disk."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.core.errors import DiskFull
from app.utils.folders import is_disk_full

# By the settings that name the folders: no path of the host reaches a client.
RUN_FOLDER = "the run's folder has no room; make room in RESULTS_DIR, then retry the job, or --resume the command"
DATA_FOLDER = "the cut of the data has no room; make room in DATA_DIR, then retry the job"
REGISTRY = "what was trained has no room to be published; make room in MODELS_DIR, then retry the job"
FORECASTS = "a rehearsal of the run has no room; make room in INSTANCE_DIR, then ask again"


@contextmanager
def needs_room(otherwise: str) -> Iterator[None]:
    """``DiskFull``, saying ``otherwise``, where what the block writes finds no room."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise DiskFull(f"the disk is full: {otherwise}") from error
        raise
