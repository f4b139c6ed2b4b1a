"""Curves: no spike is lost, whatever was summed up before."""

import math
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.entities.jobs import JobEvent
from app.core.entities.metrics import (
    LAST_STEP,
    Figure,
    MetricCurve,
    merged,
    point_of,
    reduced,
    surviving,
    width_for,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
values = st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.integers()
figures = st.dictionaries(st.sampled_from(["loss", "eval_loss", "grad_norm"]), values, max_size=3)
steps = st.integers(0, 40) | st.integers(0, 100_000)


def event(number, data, kind="metrics"):
    return JobEvent(number, kind, "info", "", NOW, data)


def points(said):
    return [point_of(event(number, {**data, "step": step})) for number, (step, data) in enumerate(said, 1)]


runs = st.lists(st.tuples(steps, figures), min_size=1, max_size=60).map(points)


@given(run=runs, most=st.integers(1, 50))
def test_a_curve_keeps_extremes_order_and_ends(run, most):
    first, last = min(p.first_step for p in run), max(p.last_step for p in run)
    width = width_for(first, last, most)
    curve = reduced(run, width)
    assert 1 <= len(curve) <= most
    assert (curve[0].first_step, curve[-1].last_step) == (first, last)
    assert sum(point.events for point in curve) == len(run)
    for before, after in pairwise(curve):
        assert before.last_step < after.first_step
        assert before.first_step // width < after.first_step // width
    for name in ("loss", "eval_loss", "grad_norm"):
        known = [p.figures[name].min for p in run if name in p.figures and p.figures[name].known]
        drawn = [p.figures[name] for p in curve if name in p.figures]
        assert sum(figure.known for figure in drawn) == len(known)
        assert sum(figure.nulls for figure in drawn) == sum(
            p.figures[name].nulls for p in run if name in p.figures
        )
        if known:
            with_values = [figure for figure in drawn if figure.known]
            assert min(figure.min for figure in with_values) == min(known)
            assert max(figure.max for figure in with_values) == max(known)
            assert all(figure.min <= figure.mean <= figure.max for figure in with_values)


@given(run=runs, narrow=st.integers(0, 8), more=st.integers(0, 8))
def test_summed_up_in_two_goes_is_summed_up_in_one(run, narrow, more):
    once = reduced(run, 2 ** (narrow + more))
    twice = reduced(reduced(run, 2**narrow), 2 ** (narrow + more))
    assert [(p.first_event, p.last_event, p.first_step, p.last_step, p.events) for p in once] == [
        (p.first_event, p.last_event, p.first_step, p.last_step, p.events) for p in twice
    ]
    for one, other in zip(once, twice, strict=True):
        assert one.figures.keys() == other.figures.keys()
        for name, figure in one.figures.items():
            found = other.figures[name]
            assert figure._replace(mean=None) == found._replace(mean=None)
            if figure.known:
                size = max(abs(figure.min), abs(figure.max))
                assert figure.mean == found.mean or abs(figure.mean / size - found.mean / size) < 1e-12


@given(first=steps, more=steps, most=st.integers(2, 2000))
def test_a_point_is_no_wider_than_it_must_be(first, more, most):
    width = width_for(first, first + more, most)
    assert math.log2(width).is_integer()
    if width > 1:
        narrower = width // 2
        assert (first + more) // narrower - first // narrower + 1 > most


def test_the_mean_is_of_all_values():
    said = [(0, {"loss": 1.0}), (1, {"loss": 2.0}), (2, {"loss": None}), (3, {"loss": 6})]
    in_twos = reduced(points(said), 2)
    assert merged(in_twos).figures["loss"] == Figure(known=3, nulls=1, mean=3.0, min=1.0, max=6.0)


def test_values_that_are_no_numbers_are_counted():
    point = point_of(event(7, {"step": 3, "total_steps": 9, "a": math.nan, "b": True, "c": "x", "d": 10**400}))
    assert set(point.figures) == {"a", "b", "c", "d"}
    assert set(point.figures.values()) == {Figure(0, 1, None, None, None)}
    assert (point.first_event, point.last_event, point.first_step, point.last_step) == (7, 7, 3, 3)


@pytest.mark.parametrize("step", [None, -1, 1.5, "1", True, LAST_STEP + 1])
def test_an_event_without_a_step_is_no_point(step):
    assert point_of(event(1, {"step": step, "loss": 1.0})) is None


def test_only_what_was_measured_is_a_point():
    assert point_of(event(1, {"step": 1}, kind="message")) is None
    assert point_of(event(1, {})) is None


def test_names_are_those_with_a_number():
    curve = MetricCurve(1, points([(1, {"loss": 1.0, "gpu_utilization": None}), (2, {"eval_loss": 2.0})]))
    assert curve.names == ["eval_loss", "loss"]
    assert curve.events == 2


@given(claims=st.dictionaries(st.integers(1, 9), st.tuples(st.integers(0, 50), st.integers(0, 50))))
def test_a_step_counts_in_the_newest_claim_that_begins_no_later(claims):
    ranges = {fence: (first, first + more) for fence, (first, more) in claims.items()}
    spans = surviving(ranges)
    counting = {(span.fence, step) for span in spans for step in range(span.start, span.end)}
    assert counting == {
        (fence, step)
        for fence, (first, last) in ranges.items()
        for step in range(first, last + 1)
        if not any(later > fence and ranges[later][0] <= step for later in ranges)
    }
    assert sorted(spans, key=lambda span: span.start) == spans
