"""A job's events as they come, until its end."""

from collections.abc import Callable, Iterator
from typing import Any

from app.api.jobs.schemas import EventSchema
from app.core.entities.identity import Principal
from app.core.entities.jobs import FINAL_STATES
from app.core.errors import AppError
from app.core.interfaces.services.jobs import JobReader
from app.gateway.streams import frame

LOOK_SECONDS = 0.5  # between two looks into the database: two queries by primary key, no transaction held between
PAGE = 500  # events read at once


def event_frames(
    records: JobReader, principal: Principal, job_id: str, last: Any, after: int, go_on: Callable[[float], bool]
) -> Iterator[bytes | None]:
    """Frames from the number after ``after`` on, None at each look that found nothing, at last ``end``, which
    says of the job what the schema ``last`` does.

    Outside a request. They end when the database does not answer: a client that comes back gets the error.
    """
    one = EventSchema()
    pause = 0.0
    while go_on(pause):
        try:
            # The job first: what is written after that is not the end.
            job, events = records.news(principal, job_id, after=after, limit=PAGE)
        except AppError:
            return
        for event in events:
            yield frame(event.type, _plain(one, event), event.seq)
            after = event.seq
        if len(events) == PAGE:
            pause = 0.0
            continue
        if job.state in FINAL_STATES:
            yield frame("end", _plain(last, job))
            return
        pause = LOOK_SECONDS
        yield None


def _plain(schema: Any, value: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = schema.dump(value)
    return dumped
