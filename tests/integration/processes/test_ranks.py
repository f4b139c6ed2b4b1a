"""A job's two processes, started and followed by the real launcher, with the double for torch."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.core.entities.training_config import TrainingConfig
from app.implementations.queue.trainer_launcher import ProcessTrainerHandle, ProcessTrainerLauncher
from app.utils.clock import boottime
from tests.integration.processes.test_trainer import LONG, ended
from tests.running_service import at_large, wait_until

Start = Callable[..., ProcessTrainerHandle]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    handles: list[ProcessTrainerHandle] = []

    def launch(name: str, *, lease: float = LONG, epochs: int = 3, processes: int = 2) -> ProcessTrainerHandle:
        run_folder = tmp_path / "results" / name
        attempt_folder = run_folder / "attempts" / "1"
        attempt_folder.mkdir(parents=True)
        config = TrainingConfig(experiment_name=name, num_epochs=epochs, strategy="ddp", processes=processes)
        job_file: dict[str, Any] = {
            "job_id": f"job-{name}",
            "attempt": 1,
            "runner": "double",
            "processes": processes,
            "config": config.model_dump(mode="json"),
            "base_model_folder": str(tmp_path),
            "dataset_folder": str(tmp_path),
            "run_folder": str(run_folder),
            "threads": 2,
        }
        handle = ProcessTrainerLauncher().start(job_file, attempt_folder, boottime() + lease)
        assert isinstance(handle, ProcessTrainerHandle)
        handles.append(handle)
        return handle

    yield launch
    for handle in handles:
        handle.kill()


def marks(tmp_path: Path) -> list[tuple[str, int]]:
    path = tmp_path / "results" / "marks.txt"
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [(line[0], int(line[4])) for line in lines]


def at_work(tmp_path: Path) -> list[psutil.Process]:
    """The job's two processes, once both are in their steps: rank 0, then the other."""
    wait_until(lambda: len(marks(tmp_path)) == 2)
    found = [psutil.Process(pid) for _, pid in marks(tmp_path)]
    return sorted(
        found, key=lambda process: process.pid in {child.pid for other in found for child in other.children()}
    )


def test_rank_0_alone_reports_and_saves(start: Start, tmp_path: Path) -> None:
    handle = start("double-ok", epochs=3)
    assert ended(handle)
    assert handle.outcome().kind == "succeeded"
    assert sorted(word for word, _ in marks(tmp_path)) == ["end", "end", "start", "start"]
    assert [event.seq for event in handle.new_events()] == [1, 2, 3, 4]
    attempt = tmp_path / "results/double-ok/attempts/1"
    assert {path.name for path in attempt.iterdir()} == {"job.json", "events.ndjson", "result.json"}


def test_a_rank_that_is_killed_ends_the_job_by_name(start: Start, tmp_path: Path) -> None:
    handle = start("double-hangs")
    processes = at_work(tmp_path)
    processes[1].kill()
    assert ended(handle, 30)
    outcome = handle.outcome()
    assert (outcome.kind, outcome.code) == ("failed", "rank_lost")
    assert "rank 1 of 2 ended by SIGKILL" in (outcome.message or "")
    assert handle.new_events()[-1].level == "error"
    assert not any(at_large(process) for process in processes)


def test_an_error_of_all_is_told_once(start: Start, tmp_path: Path) -> None:
    handle = start("double-fails")
    assert ended(handle)
    outcome = handle.outcome()
    assert (outcome.kind, outcome.code) == ("failed", "nan_loss")
    assert "rank" not in (outcome.message or "")


def test_a_crash_of_the_others_names_one(start: Start, tmp_path: Path) -> None:
    handle = start("double-crashes-1")
    assert ended(handle, 30)
    outcome = handle.outcome()
    assert (outcome.kind, outcome.code) == ("failed", "rank_lost")
    assert "rank 1 of 2 ended with exit status 70" in (outcome.message or "")


def test_all_are_of_one_session_share_the_threads_and_stop_within_seconds(start: Start, tmp_path: Path) -> None:
    handle = start("double-slow", epochs=1000)
    processes = first, other = at_work(tmp_path)
    assert os.getsid(first.pid) == os.getsid(other.pid)
    assert other.environ()["OMP_NUM_THREADS"] == "1"
    assert first.environ()["OMP_NUM_THREADS"] == "2"  # as the launcher gave it; it tells torch its share
    handle.stop()
    assert ended(handle, 5)
    assert handle.outcome().kind == "stopped"
    assert not any(at_large(process) for process in processes)


def test_kill_leaves_none(start: Start, tmp_path: Path) -> None:
    handle = start("double-hangs")
    processes = at_work(tmp_path)
    handle.kill()
    assert not any(at_large(process) for process in processes)


@pytest.mark.parametrize("name", ["double-hangs", "double-busy"])
def test_no_rank_outlives_rank_0(start: Start, tmp_path: Path, name: str) -> None:
    start(name)
    first, other = at_work(tmp_path)
    first.kill()
    wait_until(lambda: not at_large(other))


def test_the_lease_holds_in_every_rank(start: Start, tmp_path: Path) -> None:
    """Rank 0 is frozen: nobody but its own timer can end the other."""
    start("double-hangs", lease=12.0)
    first, other = at_work(tmp_path)
    first.suspend()
    wait_until(lambda: not at_large(other))
    assert first.is_running()


def test_renewals_reach_every_rank(start: Start, tmp_path: Path) -> None:
    """The renewals are shorter than the lease at the start: one that misses any of them ends."""
    handle = start("double-hangs", lease=2 * LONG)
    processes = at_work(tmp_path)
    began = boottime()
    while boottime() < began + 8:
        handle.renew(boottime() + 6)
        assert not handle.wait(0.5)
    assert all(map(at_large, processes))
    wait_until(lambda: not any(map(at_large, processes)))
    assert handle.outcome().code == "lease_ended"


def test_a_rank_that_was_frozen_past_its_lease_gives_the_job_back(start: Start, tmp_path: Path) -> None:
    handle = start("double-hangs", lease=12.0)
    first, other = at_work(tmp_path)
    handle.renew(boottime() + LONG)  # reaches a rank that does not read it
    other.suspend()
    os.kill(other.pid, signal.SIGALRM)  # as its timer would
    other.resume()
    assert ended(handle, 30)
    assert handle.outcome().code == "lease_ended"
    assert not at_large(first)


def test_more_ranks_than_cores_are_refused(start: Start) -> None:
    handle = start("double-ok", processes=1000)
    assert ended(handle)
    outcome = handle.outcome()
    assert outcome.kind == "failed"
    assert "processes" in (outcome.message or "")
