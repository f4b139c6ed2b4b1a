"""A curve as columns, one figure for each point, as charts take it."""

from collections.abc import Sequence
from typing import Any

from app.core.entities.metrics import Figure, MetricCurve

_NOTHING = Figure(0, 0, None, None, None)


def metric_columns(curve: MetricCurve, names: Sequence[str] | None) -> dict[str, Any]:
    """``names`` None: all that was measured; one that never was is a column of nulls."""
    measured = curve.names
    return {
        "events": curve.events,
        "width": curve.width,
        "names": measured,
        "first_steps": [point.first_step for point in curve.points],
        "steps": [point.last_step for point in curve.points],
        "series": {name: _series(curve, name) for name in (measured if names is None else names)},
    }


def _series(curve: MetricCurve, name: str) -> dict[str, Any]:
    figures = [point.figures.get(name, _NOTHING) for point in curve.points]
    return {field: [getattr(figure, field) for figure in figures] for field in Figure._fields}
