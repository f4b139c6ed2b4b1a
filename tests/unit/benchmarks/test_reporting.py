"""The benchmark of reporting takes in every event that it writes."""

from benchmarks.reporting import _measure


def test_it_ends_with_every_event_in_the_table() -> None:
    writing, worker = _measure(50, ingests=True, pause=0.0)
    assert writing > 0
    assert worker > 0
