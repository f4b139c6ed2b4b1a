"""The benchmark of the queue: both systems do every job that it hands in."""

from pathlib import Path

import pytest

from benchmarks.jobs import Runs, _measure, _ours, _peer, percentile_95


@pytest.mark.parametrize("system", [_ours, _peer])
def test_every_job_is_counted(system, tmp_path: Path) -> None:
    runs = Runs()
    with system(tmp_path / "subject", None) as subject:
        _measure(subject, 2, 3, runs)
        assert (len(subject.starts()), subject.ends()) == (6, 6)
    assert [len(delays) for delays in runs.delays] == [2]
    assert min(runs.delays[0]) > 0
    assert runs.rates[0] > 0


def test_the_slow_ones() -> None:
    assert percentile_95([float(number) for number in range(101)]) == 95
