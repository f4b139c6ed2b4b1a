"""What a run measured, as a curve of as many points as one can draw.

A point sums up the steps from a multiple of its width to the next. Widths are powers of two: so points stay where
they are while a run grows, and what is summed up by 16 steps can be summed up further by 32, or by 4096.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from app.core.entities.jobs import JobEvent

LAST_STEP = 2**31 - 1
_NOT_MEASURED = ("step", "total_steps")


class Figure(NamedTuple):
    """The values that one name had. Where ``known`` is 0 there is no mean, min or max."""

    known: int  # values that are numbers
    nulls: int  # values that are none: not finite, or not known
    mean: float | None
    min: float | None
    max: float | None


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """Some metrics events of one job: their numbers, their steps, and what they measured, by name."""

    first_event: int
    last_event: int
    first_step: int
    last_step: int
    events: int
    figures: Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class MetricCurve:
    """Points by step, each of ``width`` steps; one with width 1 is what its step measured, untouched."""

    width: int
    points: Sequence[MetricPoint]

    @property
    def names(self) -> Sequence[str]:
        """Of all that was measured, as a number, anywhere."""
        return sorted({name for point in self.points for name, figure in point.figures.items() if figure.known})

    @property
    def events(self) -> int:
        return sum(point.events for point in self.points)


@dataclass(frozen=True, slots=True)
class StepSpan:
    """The steps ``start <= step < end`` of one claim."""

    fence: int
    start: int
    end: int


def point_of(event: JobEvent) -> MetricPoint | None:
    """``event.seq`` is its number over the job's life. None for one that has measured nothing."""
    step = event.data.get("step")
    if event.type != "metrics" or type(step) is not int or not 0 <= step <= LAST_STEP:
        return None
    figures = {name: _figure(value) for name, value in event.data.items() if name not in _NOT_MEASURED}
    return MetricPoint(event.seq, event.seq, step, step, 1, figures)


def merged(points: Sequence[MetricPoint]) -> MetricPoint:
    """Of one point at least, in any order."""
    if len(points) == 1:
        return points[0]
    parts: dict[str, list[Figure]] = {}
    for point in points:
        for name, figure in point.figures.items():
            parts.setdefault(name, []).append(figure)
    return MetricPoint(
        first_event=min(point.first_event for point in points),
        last_event=max(point.last_event for point in points),
        first_step=min(point.first_step for point in points),
        last_step=max(point.last_step for point in points),
        events=sum(point.events for point in points),
        figures={name: _merged_figure(figures) for name, figures in parts.items()},
    )


def reduced(points: Iterable[MetricPoint], width: int) -> list[MetricPoint]:
    """By step, one for each ``width`` steps that have any; none of the points may reach over such a border."""
    groups: dict[int, list[MetricPoint]] = {}
    for point in points:
        groups.setdefault(point.first_step // width, []).append(point)
    return [merged(groups[place]) for place in sorted(groups)]


def width_for(first_step: int, last_step: int, most: int) -> int:
    """The smallest power of two that makes ``most`` points of these steps, or fewer: more than half as many,
    where there are so many steps."""
    width = 1
    while last_step // width - first_step // width >= most:
        width *= 2
    return width


def surviving(steps: Mapping[int, tuple[int, int]]) -> list[StepSpan]:
    """What counts of each claim's first to last step: a later one does again what it begins with and what follows.

    By step; they do not overlap.
    """
    spans: list[StepSpan] = []
    for fence in sorted(steps, reverse=True):
        first, last = steps[fence]
        end = min(last + 1, spans[-1].start) if spans else last + 1
        if first < end:
            spans.append(StepSpan(fence, first, end))
    return spans[::-1]


def _figure(value: Any) -> Figure:
    number = _number(value)
    return Figure(0, 1, None, None, None) if number is None else Figure(1, 0, number, number, number)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _merged_figure(figures: Sequence[Figure]) -> Figure:
    nulls = sum(figure.nulls for figure in figures)
    known = sum(figure.known for figure in figures)
    if known == 0:
        return Figure(0, nulls, None, None, None)
    least = min(figure.min for figure in figures if figure.min is not None)
    most = max(figure.max for figure in figures if figure.max is not None)
    # Weights before the sum, which else might overflow; rounded, a mean may lie a hair outside of what it is of.
    mean = sum(figure.mean * (figure.known / known) for figure in figures if figure.mean is not None)
    return Figure(known, nulls, min(max(mean, least), most), least, most)
