"""What a trainer process and its worker agree on (docs/trainer-protocol.md)."""

from enum import IntEnum


class TrainerExit(IntEnum):
    """Exit statuses. A lease that ran out ends the process by SIGALRM; any other status is a crash."""

    SUCCEEDED = 0  # result.json holds the result
    FAILED = 10  # result.json holds code, message and faults
    STOPPED = 11  # it was asked to
    ABANDONED = 12  # the worker's end of the control pipe closed
    DISK_FULL = 13  # not even result.json found room
