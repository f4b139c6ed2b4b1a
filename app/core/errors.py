"""The errors that services raise. The gateway alone turns them into HTTP (DESIGN: errors are an interface).

``message`` and ``faults`` reach the client, so they name fields, rows and known choices, never a path of the host.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with an input: a field (``config.learning_rate``) or a place in data (``row 12: …``)."""

    where: str
    code: str
    message: str


class AppError(Exception):
    """Something the caller should know. ``status`` is HTTP's; ``code`` is stable and machine-readable."""

    status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        faults: Sequence[Fault] = (),
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.faults = tuple(faults)
        self.retry_after = retry_after  # seconds


class Invalid(AppError):
    status = 422
    default_code = "invalid_request"


class Unauthorized(AppError):
    status = 401
    default_code = "unauthorized"


class Forbidden(AppError):
    status = 403
    default_code = "forbidden"


class NotFound(AppError):
    status = 404
    default_code = "not_found"


class Conflict(AppError):
    status = 409
    default_code = "conflict"


class StaleAttempt(Conflict):
    """A write by an attempt that no longer owns its job: refused, and the writer ends its trainer."""

    default_code = "stale_attempt"


class TooMany(AppError):
    status = 429
    default_code = "too_many_requests"


class Unavailable(AppError):
    status = 503
    default_code = "unavailable"


class DiskFull(AppError):
    """What was to be written found no room. Nothing half-written is left."""

    status = 507
    default_code = "disk_full"


def no_project(project_id: str) -> NotFound:
    return NotFound(f"there is no project {project_id[:80]!r}", code="project_not_found")


def no_dataset(dataset_id: str) -> NotFound:
    return NotFound(f"no dataset {dataset_id[:80]!r} in this project", code="dataset_not_found")


def unknown_page(what: str, after: str) -> Invalid:
    """Refuse a page that is asked for by a last ``what`` of the page before that is not there."""
    fault = Fault("after", f"unknown_{what}", f"must be the id of the last {what} of the page before")
    return Invalid(f"there is no {what} {after[:80]!r} to go on from", faults=[fault])
