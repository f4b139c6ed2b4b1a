"""A child process that serves a step of a job in the worker, and is not an attempt at it."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from app.core.interfaces.operations import TrainerLauncher, TrainerOutcome
from app.utils.clock import boottime

POLL_SECONDS = 0.1
LEASE_SECONDS = 30.0  # renewed while the worker waits for it


def run_child(
    launcher: TrainerLauncher,
    job_file: Mapping[str, Any],
    folder: Path,
    go_on: Callable[[], bool],
    seconds: float = float("inf"),
) -> TrainerOutcome | None:
    """Carry out ``job_file`` in ``folder``; None where ``go_on`` said no, or ``seconds`` were over, first."""
    until = time.monotonic() + seconds
    deadline = boottime() + min(seconds, LEASE_SECONDS)
    handle = launcher.start(job_file, folder, deadline)
    try:
        while not handle.wait(POLL_SECONDS):
            if not go_on() or time.monotonic() > until:
                return None
            handle.new_events()
            if boottime() > deadline - LEASE_SECONDS / 2:
                deadline = boottime() + LEASE_SECONDS
                handle.renew(deadline)
    finally:
        handle.kill()
    return handle.outcome()
