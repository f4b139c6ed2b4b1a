"""The clock of leases."""

import time


def boottime() -> float:
    """Seconds since the machine started, time asleep included: the same figure in every process of a host.

    Where the system has no such clock (it is Linux's), the monotonic one.
    """
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
