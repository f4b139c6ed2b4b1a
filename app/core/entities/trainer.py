"""What a trainer process and its worker agree on (docs/trainer-protocol.md)."""

from dataclasses import dataclass
from enum import IntEnum


class TrainerExit(IntEnum):
    """Exit statuses. A lease that ran out ends the process by SIGALRM; any other status is a crash."""

    SUCCEEDED = 0  # result.json holds the result
    FAILED = 10  # result.json holds code, message and faults
    STOPPED = 11  # it was asked to
    ABANDONED = 12  # the worker's end of the control pipe closed
    DISK_FULL = 13  # not even result.json found room


@dataclass(frozen=True, slots=True)
class Placement:
    """Which of a job's processes one is."""

    rank: int = 0
    processes: int = 1
    local_rank: int = 0  # among those of this host: the number of its GPU
    rendezvous: str = ""  # where they meet: file:///…, or env:// for what torchrun has set


ALONE = Placement()
