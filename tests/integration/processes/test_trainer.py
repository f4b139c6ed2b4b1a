"""Real trainer processes, started and followed by the real launcher, with the double for torch."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.core.entities.trainer import TrainerExit
from app.core.entities.training_config import TrainingConfig
from app.implementations.queue.trainer_launcher import (
    SHAPE_CACHES,
    ProcessTrainerHandle,
    ProcessTrainerLauncher,
)
from app.utils.clock import boottime
from tests.running_service import at_large
from tests.small_disk import SmallTmpfs

LONG = 60.0  # seconds; far beyond what any step below takes

Start = Callable[..., ProcessTrainerHandle]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    handles: list[ProcessTrainerHandle] = []

    def launch(name: str, *, lease: float = LONG, epochs: int = 3) -> ProcessTrainerHandle:
        run_folder = tmp_path / "results" / name
        attempt_folder = run_folder / "attempts" / str(len(handles) + 1)
        attempt_folder.mkdir(parents=True)
        config = TrainingConfig(experiment_name=name, num_epochs=epochs)
        job_file: dict[str, Any] = {
            "job_id": f"job-{name}",
            "attempt": 1,
            "runner": "double",
            "config": config.model_dump(mode="json"),
            "base_model_folder": str(tmp_path),
            "dataset_folder": str(tmp_path),
            "run_folder": str(run_folder),
            "threads": 1,
        }
        handle = ProcessTrainerLauncher().start(job_file, attempt_folder, boottime() + lease)
        assert isinstance(handle, ProcessTrainerHandle)
        handles.append(handle)
        return handle

    yield launch
    for handle in handles:
        handle.kill()


def ended(handle: ProcessTrainerHandle, seconds: float = LONG) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if handle.wait(until - time.monotonic()):
            return True
    return False


def at_work(handle: ProcessTrainerHandle) -> None:
    """Until the double has taken its first step."""
    seen: list[str] = []
    while "metrics" not in seen:
        assert not handle.wait(LONG)
        seen += [event.type for event in handle.new_events()]


def test_a_run_that_succeeds(start: Start, tmp_path: Path) -> None:
    handle = start("double-ok", epochs=5)
    assert ended(handle)
    outcome = handle.outcome()
    assert outcome.kind == "succeeded"
    assert outcome.result is not None
    assert outcome.result["metrics"]["train_loss"] == pytest.approx(0.4)
    events = handle.new_events()
    assert [event.seq for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event.data.get("step") for event in events] == [None, 1, 2, 3, 4, 5]
    assert events[-1].data["total_steps"] == 5
    assert handle.new_events() == []
    run_folder = tmp_path / "results" / "double-ok"
    assert {"metrics.json", "logs.txt", "artifacts"} <= {path.name for path in run_folder.iterdir()}
    marks = [line.split()[0] for line in (tmp_path / "results" / "marks.txt").read_text().splitlines()]
    assert marks == ["start", "end"]


def test_a_trainer_has_its_threads_and_keeps_few_shapes(start: Start) -> None:
    handle = start("double-hangs")
    at_work(handle)  # a process that has not begun yet has no environment to be read
    environment = psutil.Process(handle.pid).environ()
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment.items() >= SHAPE_CACHES.items()


@pytest.mark.parametrize(
    ("name", "code"),
    [("double-fails", "nan_loss"), ("double-memory", "out_of_memory"), ("double-raises", "trainer_failed")],
)
def test_a_run_that_fails_says_why(start: Start, tmp_path: Path, name: str, code: str) -> None:
    handle = start(name)
    assert ended(handle)
    outcome = handle.outcome()
    assert (outcome.kind, outcome.code) == ("failed", code)
    assert handle.new_events()[-1].level == "error"
    assert "secret" not in (outcome.message or "")
    assert ("secret" in (tmp_path / "results" / name / "logs.txt").read_text()) == (name == "double-raises")


def test_every_fault_comes_back(start: Start) -> None:
    handle = start("double-invalid")
    assert ended(handle)
    assert [fault.where for fault in handle.outcome().faults] == ["row 1", "row 2"]


def test_a_crash_is_no_failure_of_the_data(start: Start) -> None:
    handle = start("double-crashes")
    assert ended(handle)
    outcome = handle.outcome()
    assert (outcome.kind, outcome.code) == ("crashed", "trainer_failed")
    assert "exit status 70" in (outcome.message or "")


def test_stop_ends_it_at_the_next_step(start: Start) -> None:
    handle = start("double-slow", epochs=1000)
    at_work(handle)
    handle.stop()
    assert ended(handle)
    assert handle.outcome().kind == "stopped"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_stop(start: Start, number: int) -> None:
    handle = start("double-slow", epochs=1000)
    at_work(handle)
    os.kill(handle.pid, number)
    assert ended(handle)
    assert handle.outcome().kind == "stopped"


def test_kill_leaves_no_process_of_any_session(start: Start) -> None:
    handle = start("double-forks")
    at_work(handle)
    trainer = psutil.Process(handle.pid)
    while not (family := trainer.children(recursive=True)):
        assert not handle.wait(0.01)
    while os.getsid(family[0].pid) == handle.pid:  # until the child has a session of its own
        assert not handle.wait(0.01)
    handle.kill()
    assert not any(at_large(process) for process in [trainer, *family])
    assert handle.outcome().kind == "crashed"


def test_the_lease_ends_it(start: Start) -> None:
    handle = start("double-hangs", lease=2.0)
    assert ended(handle, 10)
    assert handle.outcome().code == "lease_ended"


def test_a_lease_that_is_past_never_lets_it_begin(start: Start, tmp_path: Path) -> None:
    handle = start("double-ok", lease=-1.0)
    assert ended(handle, 10)
    assert handle.outcome().code == "lease_ended"
    assert not (tmp_path / "results" / "marks.txt").exists()


def test_a_start_that_takes_longer_than_the_lease_counts_on_what_was_said_meanwhile(start: Start) -> None:
    handle = start("double-ok", lease=-1.0)
    for lease in (-0.5, 60.0):  # long before its interpreter is up
        handle.renew(boottime() + lease)
    assert ended(handle, 20)
    assert handle.outcome().kind == "succeeded"


def test_renewals_keep_it_alive_and_their_absence_does_not(start: Start) -> None:
    handle = start("double-hangs", lease=2.0)
    began = boottime()
    while boottime() < began + 4:
        handle.renew(boottime() + 1.5)
        assert not handle.wait(0.3)
        handle.new_events()
    assert ended(handle, 5)
    assert handle.outcome().code == "lease_ended"


def test_the_lease_ends_it_also_inside_c_code_that_holds_the_interpreter(start: Start) -> None:
    handle = start("double-busy", lease=5.0)
    at_work(handle)
    assert ended(handle, 20)
    assert handle.outcome().code == "lease_ended"


def test_a_frozen_trainer_dies_of_its_lease_before_it_goes_on(start: Start, tmp_path: Path) -> None:
    handle = start("double-slow", lease=5.0, epochs=1000)
    at_work(handle)
    os.kill(handle.pid, signal.SIGSTOP)
    assert not ended(handle, 5.1)
    before = (tmp_path / "results/double-slow/attempts/1/events.ndjson").read_bytes()
    os.kill(handle.pid, signal.SIGCONT)
    assert ended(handle, 5)
    assert handle.outcome().code == "lease_ended"
    assert (tmp_path / "results/double-slow/attempts/1/events.ndjson").read_bytes() == before


def test_a_disk_without_room_for_a_word_is_told_by_the_exit_status(start: Start, tmp_path: Path) -> None:
    with SmallTmpfs(tmp_path / "results") as disk:
        handle = start("double-slow", epochs=20)
        at_work(handle)
        disk.fill(0)
        assert ended(handle)
        outcome = handle.outcome()
        handle.kill()
        assert (outcome.kind, outcome.code) == ("failed", "disk_full")
        assert not list((tmp_path / "results/double-slow/attempts/1").glob("*result.json*"))


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [("double-ok", "succeeded", None), ("double-raises", "failed", "trainer_failed")],
)
def test_a_log_without_room_costs_its_words_only(
    start: Start, tmp_path: Path, name: str, kind: str, code: str | None
) -> None:
    (tmp_path / "results" / name).mkdir(parents=True)
    (tmp_path / "results" / name / "logs.txt").symlink_to("/dev/full")
    handle = start(name)
    assert ended(handle)
    outcome = handle.outcome()
    assert (outcome.kind, outcome.code) == (kind, code)


LAUNCH_AND_WAIT = """
import json, sys
from pathlib import Path
from app.implementations.queue.trainer_launcher import ProcessTrainerLauncher
from app.utils.clock import boottime
from tests.running_service import at_large
job = json.loads(sys.argv[1])
handle = ProcessTrainerLauncher().start(job, Path(job["run_folder"]) / "attempts/1", boottime() + 60)
while not handle.new_events():
    handle.wait(10)
print(handle.pid, flush=True)
sys.stdin.read()
"""


def test_it_does_not_outlive_a_worker_that_was_killed(tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    (run_folder / "attempts" / "1").mkdir(parents=True)
    folders = dict.fromkeys(("base_model_folder", "dataset_folder"), str(tmp_path))
    config = TrainingConfig(experiment_name="double-hangs").model_dump(mode="json")
    about = {"job_id": "j", "attempt": 1, "runner": "double", "threads": 1}
    job = {**about, "config": config, "run_folder": str(run_folder), **folders}
    command = [sys.executable, "-c", LAUNCH_AND_WAIT, json.dumps(job)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        trainer = psutil.Process(int(worker.stdout.readline()))
        worker.kill()
    gone, alive = psutil.wait_procs([trainer], timeout=10)
    for process in alive:
        process.kill()
    assert gone
    assert not (run_folder / "attempts/1/result.json").exists()


def test_exit_statuses_are_those_of_the_document() -> None:
    text = (Path(__file__).parents[3] / "docs" / "trainer-protocol.md").read_text("utf-8")
    for status in TrainerExit:
        assert f"| {status.value} |" in text
