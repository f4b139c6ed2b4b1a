"""The traceback of what was caught, for whoever runs the machine: no client sees it."""

import traceback
from contextlib import suppress


def print_traceback() -> None:
    """Of the exception at hand, to standard error: a trainer's logs.txt. A full disk costs the words only."""
    with suppress(OSError):
        traceback.print_exc()
