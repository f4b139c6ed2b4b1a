"""A job's metrics summed up as its events are kept: a million steps are read as a few thousand rows.

``job_metric_chunks`` holds points of 16, 256 and 4096 steps of each claim. A claim that goes on from a checkpoint
does steps again; which of them count is looked up when they are read. What counts only in part of a chunk is read
from smaller ones, in the end from the events.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.core.entities.jobs import JobEvent
from app.core.entities.metrics import (
    Figure,
    MetricCurve,
    MetricPoint,
    StepSpan,
    merged,
    point_of,
    reduced,
    surviving,
    width_for,
)
from app.repositories.mapping import event_entity
from app.repositories.tables import JobEventRow, JobMetricChunkRow, JobRow

WIDTHS = (16, 256, 4096)
_RATIO = 16
BEHIND_BATCH = 4000  # events of a job from before there were chunks, summed up in one transaction

_POINT = ("first_event", "last_event", "first_step", "last_step", "events")


def add_to_chunks(session: Session, job: JobRow, fence: int, events: Sequence[JobEvent]) -> None:
    """Events of one claim, numbered over the job's life, each of them once. The job's row is locked."""
    points = [point for event in events if (point := point_of(event)) is not None]
    for width in WIDTHS if points else ():
        points = reduced(points, width)
        places = {point.first_step // width: point for point in points}
        of_claim = JobMetricChunkRow.width == width, JobMetricChunkRow.fence == fence
        query = select(JobMetricChunkRow).where(
            JobMetricChunkRow.job_id == job.id, *of_claim, JobMetricChunkRow.place.in_(places)
        )
        rows = {row.place: row for row in session.scalars(query)}
        for place, point in places.items():
            if (row := rows.get(place)) is None:
                row = JobMetricChunkRow(
                    job_id=job.id, width=width, fence=fence, place=place, project_id=job.project_id
                )
                session.add(row)
            else:
                point = merged([_point(row), point])
            for name in _POINT:
                setattr(row, name, getattr(point, name))
            row.figures = dict(point.figures)


def catch_up(session: Session, job: JobRow) -> None:
    """Some of the events that the chunks do not have yet. The job's row is locked."""
    until = min(job.last_chunked + BEHIND_BATCH, job.last_event)
    query = select(JobEventRow).where(
        JobEventRow.job_id == job.id, JobEventRow.number > job.last_chunked, JobEventRow.number <= until
    )
    by_claim: dict[int, list[JobEvent]] = {}
    for row in session.scalars(query):
        by_claim.setdefault(row.fence, []).append(event_entity(row))
    for fence, events in by_claim.items():
        add_to_chunks(session, job, fence, events)
    job.last_chunked = until


def read_curve(session: Session, project_id: str, job_id: str, most: int) -> MetricCurve:
    of_job = JobMetricChunkRow.project_id == project_id, JobMetricChunkRow.job_id == job_id
    steps = select(
        JobMetricChunkRow.fence, func.min(JobMetricChunkRow.first_step), func.max(JobMetricChunkRow.last_step)
    ).where(*of_job, JobMetricChunkRow.width == WIDTHS[-1])
    found = session.execute(steps.group_by(JobMetricChunkRow.fence))
    spans = surviving({fence: (first, last) for fence, first, last in found})
    if not spans:
        return MetricCurve(1, [])
    width = width_for(spans[0].start, spans[-1].end - 1, most)
    level = max(each for each in (1, *WIDTHS) if each <= width)
    points = (point for span in spans for point in _points(session, job_id, level, span))
    return MetricCurve(width, reduced(points, width))


def _points(session: Session, job_id: str, width: int, span: StepSpan) -> Iterator[MetricPoint]:
    """Of chunks of that width; where one reaches over the span's end, of smaller ones."""
    if width == 1:
        yield from _points_of_events(session, job_id, span)
        return
    columns = select(
        *(getattr(JobMetricChunkRow, name) for name in _POINT), JobMetricChunkRow.figures, JobMetricChunkRow.place
    )
    rows = session.execute(columns.where(*_of_span(job_id, width, span)).order_by(JobMetricChunkRow.place)).all()
    for row in rows:
        if row.last_step < span.end:
            yield _point(row)
        else:
            start = max(span.start, row.place * width)
            yield from _points(session, job_id, width // _RATIO, StepSpan(span.fence, start, span.end))


def _points_of_events(session: Session, job_id: str, span: StepSpan) -> Iterator[MetricPoint]:
    numbers = select(func.min(JobMetricChunkRow.first_event), func.max(JobMetricChunkRow.last_event))
    first, last = session.execute(numbers.where(*_of_span(job_id, WIDTHS[0], span))).one()
    query = select(JobEventRow).where(
        JobEventRow.job_id == job_id,
        JobEventRow.number.between(first, last),
        JobEventRow.fence == span.fence,
        JobEventRow.type == "metrics",
    )
    for row in session.scalars(query):
        point = point_of(event_entity(row))
        if point is not None and span.start <= point.first_step < span.end:
            yield point


def _of_span(job_id: str, width: int, span: StepSpan) -> tuple[ColumnElement[bool], ...]:
    places = JobMetricChunkRow.place.between(span.start // width, (span.end - 1) // width)
    of_claim = JobMetricChunkRow.width == width, JobMetricChunkRow.fence == span.fence
    return JobMetricChunkRow.job_id == job_id, *of_claim, places


def _point(row: Any) -> MetricPoint:
    figures = {name: Figure(*values) for name, values in row.figures.items()}
    return MetricPoint(**{name: getattr(row, name) for name in _POINT}, figures=figures)
