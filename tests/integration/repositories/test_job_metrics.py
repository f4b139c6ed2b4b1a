"""The curve of a job: what its events measured, however they came in and whatever has been summed up."""

import itertools
import math
import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select, update

from app.core.entities.jobs import JobEvent, JobState
from app.core.entities.metrics import MetricCurve, point_of, reduced, surviving, width_for
from app.repositories import job_metrics
from app.repositories.database import Database
from app.repositories.jobs import SqlJobRepository
from app.repositories.tables import JobMetricChunkRow, JobRow
from tests.integration.repositories.conftest import rounded

NOW = datetime(2026, 5, 5, tzinfo=UTC)


@pytest.fixture
def jobs(repositories):
    return repositories.jobs


@pytest.fixture
def begin(repositories, make_job):
    def begin_one(**changes):
        job = make_job(**changes)
        repositories.jobs.add([job])
        return job.id, repositories.claim(job.id)

    return begin_one


@pytest.fixture
def again(repositories):
    """Lets go of a job and claims it anew."""

    def claim(job_id, fence):
        repositories.jobs.move(job_id, fence, JobState.QUEUED)
        return repositories.claim(job_id)

    return claim


def step(seq, number, **data):
    return JobEvent(seq, "metrics", "info", f"step {number}", NOW, {"step": number, "total_steps": 9999, **data})


def losses(first, last, of=lambda number: 1.0 / number, seq=1):
    return [step(seq + number - first, number, loss=of(number)) for number in range(first, last + 1)]


def by_step(curve, name="loss"):
    return {point.last_step: point.figures[name].mean for point in curve.points if name in point.figures}


def test_a_short_run_is_drawn_as_it_was(jobs, begin):
    job_id, fence = begin()
    jobs.ingest(
        job_id,
        fence,
        [
            JobEvent(1, "message", "info", "begins", NOW, {"step": 1}),
            step(2, 1, loss=2.0, learning_rate=1e-4, gpu_utilization=None),
            step(3, 2, loss=math.nan),
            step(4, 2, eval_loss=1.5),
        ],
        None,
    )
    curve = jobs.metrics("default", job_id, most=500)
    assert (curve.width, curve.events, curve.names) == (1, 3, ["eval_loss", "learning_rate", "loss"])
    assert by_step(curve) == {1: 2.0, 2: None}
    assert curve.points[1].figures["loss"].nulls == 1
    assert by_step(curve, "eval_loss") == {2: 1.5}
    assert [(point.first_event, point.last_event) for point in curve.points] == [(2, 2), (3, 4)]


def test_nothing_measured_and_no_such_job(jobs, begin):
    job_id, fence = begin()
    jobs.ingest(job_id, fence, [JobEvent(1, "message", "info", "begins", NOW)], None)
    assert jobs.metrics("default", job_id, most=500).points == []
    assert jobs.metrics("default", "nowhere", most=500).points == []


def test_another_projects_job_has_no_curve_here(jobs, begin):
    job_id, fence = begin(project_id="other")
    jobs.ingest(job_id, fence, losses(1, 3), None)
    assert jobs.metrics("default", job_id, most=500).points == []
    assert len(jobs.metrics("other", job_id, most=500).points) == 3


def test_a_long_run_keeps_its_spikes_in_as_many_points_as_asked_for(jobs, begin):
    job_id, fence = begin()
    spikes = {17: 50.0, 4096: 60.0, 4999: -7.0}
    source = random.Random(1)
    run = losses(1, 5000, lambda number: spikes.get(number, source.random()))
    for start in range(0, len(run), 777):
        jobs.ingest(job_id, fence, run[start : start + 777], None)
    for most in (1, 2, 5, 40, 300, 5000):
        curve = jobs.metrics("default", job_id, most=most)
        assert most / 2 <= len(curve.points) <= most
        assert (curve.points[0].first_step, curve.points[-1].last_step, curve.events) == (1, 5000, 5000)
        for number, value in spikes.items():
            (point,) = [point for point in curve.points if point.first_step <= number <= point.last_step]
            assert point.figures["loss"].min <= value <= point.figures["loss"].max
        exact = [point.figures["loss"] for point in reduced([point_of(event) for event in run], curve.width)]
        found = [point.figures["loss"] for point in curve.points]
        assert [(figure.min, figure.max) for figure in found] == [(figure.min, figure.max) for figure in exact]
        assert [figure.mean for figure in found] == pytest.approx([figure.mean for figure in exact])


def test_events_that_come_twice_count_once(jobs, begin):
    job_id, fence = begin()
    run = losses(1, 100)
    jobs.ingest(job_id, fence, run[:60], None)
    jobs.ingest(job_id, fence, run[40:], None)
    jobs.ingest(job_id, fence, run, None)
    (point,) = jobs.metrics("default", job_id, most=1).points
    assert (point.events, point.figures["loss"].known) == (100, 100)
    assert point.figures["loss"].mean == pytest.approx(sum(1 / number for number in range(1, 101)) / 100)


def test_steps_done_again_count_as_the_later_attempt_did_them(jobs, begin, again):
    job_id, fence = begin()
    jobs.ingest(job_id, fence, losses(1, 4500, lambda _: 1000.0), None)
    for cut in (4400, 4097, 4096, 4095, 300, 256, 255, 16, 2, 1):
        fence = again(job_id, fence)
        jobs.ingest(job_id, fence, losses(cut, cut + 20, lambda number: float(number % 7)), None)
        for most in (3, 30, 400):
            curve = jobs.metrics("default", job_id, most=most)
            assert (curve.events, curve.points[-1].last_step) == (cut + 20, cut + 20)
            total = sum(point.figures["loss"].mean * point.events for point in curve.points)
            again_total = sum(number % 7 for number in range(cut, cut + 21))
            assert total == pytest.approx(1000.0 * (cut - 1) + again_total)


def of_all_events(pieces, most):
    """The curve of what claims have said, by its definition."""
    numbers, said = itertools.count(1), {}
    for claim, events in pieces:
        points = [point_of(replace(event, seq=next(numbers))) for event in events]
        said.setdefault(claim, []).extend(points)
    steps = {claim: [point.first_step for point in points] for claim, points in said.items()}
    spans = surviving({claim: (min(found), max(found)) for claim, found in steps.items()})
    counting = [p for span in spans for p in said[span.fence] if span.start <= p.first_step < span.end]
    width = width_for(spans[0].start, spans[-1].end - 1, most)
    return MetricCurve(width, reduced(counting, width))


attempts = st.tuples(
    st.integers(0, 700) | st.integers(0, 9000), st.integers(1, 90), st.sampled_from([1, 1, 2, 60])
)


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    claims=st.lists(attempts, min_size=2, max_size=4).flatmap(st.permutations),
    late=st.randoms(use_true_random=False),
    size=st.sampled_from([7, 40, 500]),
)
def test_any_attempts_are_drawn_as_if_nothing_was_summed_up(repositories, make_job, claims, late, size):
    """Each begins somewhere, and hands in its events in pieces that may come late."""
    job, jobs = make_job(), repositories.jobs
    pieces = []
    for claim, (first, count, stride) in enumerate(claims, 1):
        run = [step(seq, first + seq * stride, loss=float((seq * claim) % 11)) for seq in range(1, count + 1)]
        pieces += [(claim, run[start : start + size]) for start in range(0, len(run), size)]
    late.shuffle(pieces)
    jobs.add([job])
    for _ in claims[1:]:
        jobs.move(job.id, repositories.claim(job.id), JobState.QUEUED)
    fence = repositories.claim(job.id)
    for claim, events in pieces:
        jobs.ingest(job.id, fence, events, None, said_in=claim)
    for most in (1, 3, 20, 150, 20_000):
        curve = jobs.metrics("default", job.id, most=most)
        assert rounded(curve) == rounded(of_all_events(pieces, most))
        assert len(curve.points) <= most


def test_what_an_earlier_attempt_said_is_taken_up_late(jobs, begin, again):
    job_id, first = begin()
    jobs.ingest(job_id, first, losses(1, 20, lambda _: 1.0), None)
    second = again(job_id, first)
    jobs.ingest(job_id, second, losses(31, 40, lambda _: 2.0), None)
    third = again(job_id, second)
    jobs.ingest(job_id, third, losses(21, 50, lambda _: 1.0, seq=21), None, said_in=first)
    assert by_step(jobs.metrics("default", job_id, most=500)) == {
        **dict.fromkeys(range(1, 31), 1.0),
        **dict.fromkeys(range(31, 41), 2.0),
    }


def test_an_attempt_that_died_early_leaves_nothing_behind_a_later_one(jobs, begin, again):
    job_id, fence = begin()
    jobs.ingest(job_id, fence, losses(1, 30, lambda _: 1.0), None)
    for first, value in ((11, 2.0), (11, 3.0), (5, 4.0)):
        fence = again(job_id, fence)
        jobs.ingest(job_id, fence, losses(first, 12, lambda _, value=value: value), None)
    assert by_step(jobs.metrics("default", job_id, most=500)) == {
        **dict.fromkeys(range(1, 5), 1.0),
        **dict.fromkeys(range(5, 13), 4.0),
    }


def test_a_run_that_logs_every_hundredth_step(jobs, begin):
    job_id, fence = begin()
    run = [step(seq, 100 * seq, loss=float(seq)) for seq in range(1, 301)]
    jobs.ingest(job_id, fence, run, None)
    curve = jobs.metrics("default", job_id, most=100)
    assert (curve.width, curve.events) == (512, 300)
    assert len(curve.points) == 30000 // 512 + 1
    assert curve.points[-1].figures["loss"].max == 300.0


@pytest.fixture
def from_before(engine, make_job):
    """A running job of the schema before: events, and none of them summed up."""
    jobs = SqlJobRepository(engine)
    job = make_job()
    jobs.add([job])
    fence = jobs.claim("worker", 30, job.id).fence
    jobs.ingest(job.id, fence, losses(1, 1000), None)
    with Database(engine).write() as session:
        session.execute(delete(JobMetricChunkRow))
        session.execute(update(JobRow).values(last_chunked=0))
    return job.id, fence


def chunk_count(engine):
    with Database(engine).read() as session:
        return session.scalar(select(func.count()).select_from(JobMetricChunkRow))


def test_a_job_from_before_is_summed_up_at_the_first_look(engine, from_before, monkeypatch):
    monkeypatch.setattr(job_metrics, "BEHIND_BATCH", 300)
    job_id, fence = from_before
    jobs = SqlJobRepository(engine)
    jobs.ingest(job_id, fence, losses(1001, 1010, seq=1001), None)
    assert chunk_count(engine) == 0
    assert jobs.metrics("other", job_id, most=10).points == []
    assert chunk_count(engine) == 0
    curve = jobs.metrics("default", job_id, most=10)
    assert (curve.events, curve.points[-1].last_step) == (1010, 1010)
    kept = chunk_count(engine)
    assert kept == 1010 // 16 + 1 + 1010 // 256 + 1 + 1
    assert jobs.metrics("default", job_id, most=10) == curve
    assert chunk_count(engine) == kept
    jobs.ingest(job_id, fence, losses(1011, 1100, seq=1011), None)
    assert chunk_count(engine) > kept
    assert jobs.metrics("default", job_id, most=10).events == 1100


def test_few_rows_are_read_of_a_long_run(engine, make_job):
    jobs = SqlJobRepository(engine)
    job = make_job()
    jobs.add([job])
    fence = jobs.claim("worker", 30, job.id).fence
    run = [step(seq, 8 * seq, loss=1.0) for seq in range(1, 10_001)]
    jobs.ingest(job.id, fence, run, None)
    with Database(engine).read() as session:
        levels = select(JobMetricChunkRow.width, func.count()).group_by(JobMetricChunkRow.width)
        assert dict(session.execute(levels).all()) == {16: 5001, 256: 313, 4096: 20}
    assert len(jobs.metrics("default", job.id, most=20).points) == 20
