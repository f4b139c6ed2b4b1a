"""Processes that are measured from outside."""

import signal
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks import processes
from benchmarks.processes import run, tail


def test_what_a_process_says_and_how_it_ends(tmp_path: Path) -> None:
    log, answers = tmp_path / "log", tmp_path / "answers"
    code = "import os, sys; print(os.environ['OMP_NUM_THREADS']); print('oh', file=sys.stderr); sys.exit(3)"

    finished = run("it", [sys.executable, "-c", code], log, threads=2, answers=answers)

    assert (finished.status, answers.read_text(), log.read_text()) == (3, "2\n", "oh\n")
    run("it", [sys.executable, "-c", code], log, threads=2)
    assert sorted(tail(log).splitlines()) == ["2", "oh"]  # anew, and both in one


def test_a_signal_is_a_negative_status(tmp_path: Path) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run("it", [sys.executable, "-c", code], tmp_path / "log", threads=1).status == -signal.SIGKILL


def test_peak_memory_and_time_are_the_childs(tmp_path: Path) -> None:
    held = psutil.Process().memory_info().rss + 50_000_000  # a child's peak begins with its parent's memory
    code = f"import time; kept = b'1' * {held}; del kept; time.sleep(0.2)"

    finished = run("it", [sys.executable, "-c", code], tmp_path / "log", threads=1)

    assert held < finished.peak_bytes < held + 200_000_000
    assert finished.seconds >= 0.2


def test_it_says_where_the_process_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "SAY_EVERY", 0.0)
    progress = tmp_path / "progress"
    progress.write_text("step 2/3")

    run(
        "it",
        [sys.executable, "-c", "import time; time.sleep(0.5)"],
        tmp_path / "log",
        threads=1,
        progress=progress,
    )

    assert "  it: step 2/3, 0 s" in capsys.readouterr().err.splitlines()
