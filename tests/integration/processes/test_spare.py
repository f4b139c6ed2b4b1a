"""Spare trainers: real processes, with the double for torch."""

import logging
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.core.entities.datasets import SPLITS, Conversation, Message
from app.core.entities.jobs import JobState
from app.core.entities.models import BaseModelSpec
from app.core.entities.training_config import TrainingConfig
from app.implementations.data.cuts import write_split
from app.implementations.queue import spare_trainer
from app.implementations.queue.trainer_launcher import ProcessTrainerHandle, ProcessTrainerLauncher
from app.implementations.training.checkpoints import pins_of
from app.processes.spare import LOWEST
from app.registries import BASE_MODEL_SOURCES
from app.utils.clock import boottime
from tests.running_service import CELERY, MakeService, Service, at_large, wait_until

LONG = 60.0
NEW_AND_SPARE = ("new", "spare")

Start = Callable[..., ProcessTrainerHandle]
Prepared = Callable[..., psutil.Process]


@pytest.fixture
def launcher() -> Iterator[ProcessTrainerLauncher]:
    made = ProcessTrainerLauncher("double")
    yield made
    made.dismiss()


@pytest.fixture
def start(tmp_path: Path, launcher: ProcessTrainerLauncher) -> Iterator[Start]:
    handles: list[ProcessTrainerHandle] = []

    def launch(name: str = "double-ok", lease: float = LONG, **changes: Any) -> ProcessTrainerHandle:
        run_folder = tmp_path / "results" / f"{name}-{len(handles)}"
        attempt_folder = run_folder / "attempts" / "1"
        attempt_folder.mkdir(parents=True)
        config = TrainingConfig(experiment_name=name, num_epochs=3)
        job_file: dict[str, Any] = {
            "job_id": f"job-{len(handles)}",
            "attempt": 1,
            "runner": "double",
            "config": config.model_dump(mode="json"),
            "base_model_folder": str(tmp_path),
            "dataset_folder": str(tmp_path),
            "run_folder": str(run_folder),
            "threads": 1,
            **changes,
        }
        handle = launcher.start(job_file, attempt_folder, boottime() + lease)
        assert isinstance(handle, ProcessTrainerHandle)
        handles.append(handle)
        return handle

    yield launch
    for handle in handles:
        handle.kill()


def spares_of(parent: int) -> list[psutil.Process]:
    children = [child for child in psutil.Process(parent).children() if at_large(child)]
    # One that is just becoming another program has no command line for a moment.
    wait_until(lambda: all(child.cmdline() for child in children if at_large(child)))
    return [child for child in children if at_large(child) and "app.processes.spare" in child.cmdline()]


@pytest.fixture
def prepared(launcher: ProcessTrainerLauncher, caplog: pytest.LogCaptureFixture) -> Prepared:
    return partial(wait_for_spare, launcher, caplog)


def wait_for_spare(
    launcher: ProcessTrainerLauncher, caplog: pytest.LogCaptureFixture, gpus: str | None = None
) -> psutil.Process:
    """The launcher's, once that waits for a job."""
    caplog.set_level(logging.INFO)

    def found() -> list[psutil.Process]:
        launcher.prepare(1, gpus)
        return [spare for spare in spares_of(os.getpid()) if spare.pid in prepared_in(caplog.text)]

    wait_until(found, lambda: caplog.text, 2 * LONG)
    [spare] = found()
    return spare


def prepared_in(log: str) -> list[int]:
    return [int(pid) for pid in re.findall(r"spare trainer (\d+) is prepared", log)]


def ended_well(handle: ProcessTrainerHandle) -> bool:
    while not handle.wait(LONG):
        pass
    return handle.outcome().kind == "succeeded"


def test_a_job_runs_in_the_process_that_waited_for_it_as_in_a_new_one(
    prepared: Prepared, start: Start, tmp_path: Path
) -> None:
    spare = prepared()
    handle = start()
    assert handle.pid == spare.pid
    assert ended_well(handle)
    assert not at_large(spare)
    other = start()  # without one
    assert other.pid != spare.pid
    assert ended_well(other)
    said, said_by_other = ([(e.seq, e.type, e.data) for e in each.new_events()] for each in (handle, other))
    assert len(said) == 4
    assert said == said_by_other
    for number in range(2):
        assert (tmp_path / f"results/double-ok-{number}/artifacts/adapter_config.json").is_file()


def test_each_job_has_a_process_of_its_own_and_what_that_prints_in_its_logs(
    launcher: ProcessTrainerLauncher, prepared: Prepared, start: Start, tmp_path: Path
) -> None:
    pids = set()
    for name, is_sound in (("double-ok", True), ("double-raises", False)):
        spare = prepared()
        launcher.prepare(1, None)  # there is one
        assert spares_of(os.getpid()) == [spare]
        handle = start(name)
        assert handle.pid == spare.pid
        assert ended_well(handle) is is_sound
        pids.add(handle.pid)
    assert len(pids) == 2
    assert handle.outcome().code == "trainer_failed"
    assert "secret" in (tmp_path / "results/double-raises-1/logs.txt").read_text()  # that it printed


def test_it_stops_when_it_is_told_to_and_ends_with_its_lease(prepared: Prepared, start: Start) -> None:
    spare = prepared()
    slow = start("double-slow")
    assert slow.pid == spare.pid
    slow.stop()
    while not slow.wait(LONG):
        pass
    assert slow.outcome().kind == "stopped"
    spare = prepared()
    busy = start("double-busy", lease=5.0)
    assert busy.pid == spare.pid
    while not busy.new_events():
        assert not busy.wait(LONG)
    while not busy.wait(LONG):
        pass
    assert busy.outcome().code == "lease_ended"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"gpus": "1"}, id="GPUs"),
        pytest.param({"threads": 2}, id="threads"),
        pytest.param({"processes": 2}, id="ranks"),
    ],
)
def test_one_of_another_environment_is_not_used_and_not_kept(
    prepared: Prepared, start: Start, changes: dict[str, Any]
) -> None:
    spare = prepared(gpus="0")
    if "processes" in changes:
        config = TrainingConfig(experiment_name="double-ok", strategy="ddp", processes=2)
        changes = {"config": config.model_dump(mode="json"), "threads": 2, "processes": 2}
    handle = start(**{"gpus": "0", **changes})
    assert handle.pid != spare.pid
    assert not at_large(spare)
    assert ended_well(handle)


def test_one_of_older_code_is_not_used(prepared: Prepared, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    spare = prepared()
    newer = spare_trainer.newest_code() + 1
    monkeypatch.setattr(spare_trainer, "newest_code", lambda: newer)
    handle = start()
    assert handle.pid != spare.pid
    assert ended_well(handle)
    assert not at_large(spare)


def test_one_that_is_not_prepared_yet_is_passed_over(launcher: ProcessTrainerLauncher, start: Start) -> None:
    launcher.prepare(1, None)
    [spare] = spares_of(os.getpid())
    spare.suspend()
    handle = start()
    assert handle.pid != spare.pid
    assert ended_well(handle)
    assert not at_large(spare)


def test_one_that_was_killed_is_replaced(prepared: Prepared, start: Start) -> None:
    spare = prepared()
    spare.kill()
    wait_until(lambda: not at_large(spare))
    handle = start()  # before anybody has noticed
    assert ended_well(handle)
    spare = prepared()
    spare.kill()
    wait_until(lambda: not at_large(spare))
    another = prepared()
    assert another.pid != spare.pid
    assert start().pid == another.pid


def test_one_that_ends_before_it_is_prepared_is_not_started_again_and_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    launcher = ProcessTrainerLauncher("no-such-runner")
    launcher.prepare(1, None)
    [spare] = spares_of(os.getpid())
    wait_until(lambda: not at_large(spare))
    launcher.prepare(1, None)
    assert "unprepared" in caplog.text
    assert "unknown trainer 'no-such-runner'" in caplog.text
    launcher.prepare(1, None)
    assert not spares_of(os.getpid())


def test_it_trains_to_the_same_bytes_as_a_new_process(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = tmp_path / "base"
    base.mkdir()
    BASE_MODEL_SOURCES.load("random")(BaseModelSpec("tiny", "random", "llama"), base)
    launcher = ProcessTrainerLauncher("torch")
    train_tiny(launcher, base, tmp_path / "new")
    launcher.prepare(1, None)
    [spare] = spares_of(os.getpid())
    wait_until(lambda: LOWEST in priorities(spare))
    assert wait_for_spare(launcher, caplog) == spare
    assert os.getpriority(os.PRIO_PROCESS, spare.pid) == os.getpriority(os.PRIO_PROCESS, 0)  # of its first thread
    assert train_tiny(launcher, base, tmp_path / "spare") == spare.pid
    new, other = ((tmp_path / name / "artifacts/adapter_model.safetensors").read_bytes() for name in NEW_AND_SPARE)
    assert new == other
    pins, other_pins = (pins_of(tmp_path / name / "checkpoints/job/step-00000003") for name in NEW_AND_SPARE)
    assert pins == other_pins


def test_each_slot_has_its_own_and_a_worker_that_is_killed_leaves_none(make_service: MakeService) -> None:
    service = make_service(worker_slots=2, spare_trainers=True)
    worker = service.worker()
    wait_until(lambda: len(spares_of(worker.pid)) == 2, service.log)
    spares = spares_of(worker.pid)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    wait_until(lambda: not any(map(at_large, spares)), service.log)


def test_jobs_of_a_worker_run_in_its_spares_and_a_drained_one_leaves_none(make_service: MakeService) -> None:
    service = make_service(spare_trainers=True)
    worker = service.start(*CELERY, "--loglevel", "INFO")
    pids = []
    for _ in range(2):
        spare = waiting_spare(service, worker)
        job = service.wait_for(service.submit("double-ok"))
        assert (job.state, job.attempts) == (JobState.SUCCEEDED, 1)
        pids.append(spare.pid)
    assert trainers_that_marked(service) == pids
    spare = waiting_spare(service, worker)
    worker.terminate()
    assert worker.wait(LONG) == 0
    assert not at_large(spare)


def test_without_the_setting_there_is_none(make_service: MakeService) -> None:
    service = make_service(spare_trainers=False)
    worker = service.worker()
    service.wait_for(service.submit("double-ok"))
    service.wait_for(service.submit("double-ok"))
    assert not spares_of(worker.pid)


def waiting_spare(service: Service, worker: subprocess.Popen[bytes]) -> psutil.Process:
    def found() -> list[psutil.Process]:
        pids = prepared_in(service.whole_log())
        return [spare for spare in spares_of(worker.pid) if spare.pid in pids]

    wait_until(found, service.log)
    [spare] = found()
    return spare


def priorities(process: psutil.Process) -> list[int]:
    """Of its threads."""
    found = []
    for thread in process.threads():
        with suppress(ProcessLookupError):  # it has just ended
            found.append(os.getpriority(os.PRIO_PROCESS, thread.id))
    return found


def train_tiny(launcher: ProcessTrainerLauncher, base: Path, run: Path) -> int:
    """The trainer's process id."""
    attempt = run / "attempts/1"
    attempt.mkdir(parents=True)
    for split in SPLITS:
        write_split(run, split, [chat(row) for row in range(6)])
    lora = {"r": 4, "lora_dropout": 0.1}
    config = TrainingConfig(base_model="tiny", num_epochs=1, batch_size=2, device="cpu", lora=lora)
    folders = {"base_model_folder": str(base), "dataset_folder": str(run), "run_folder": str(run)}
    about = {"job_id": "job", "attempt": 1, "runner": "torch", "threads": 1}
    job_file = {**about, "config": config.model_dump(mode="json"), **folders}
    handle = launcher.start(job_file, attempt, boottime() + 5 * LONG)
    assert isinstance(handle, ProcessTrainerHandle)
    assert ended_well(handle), (run / "logs.txt").read_text()
    handle.kill()
    return handle.pid


def chat(row: int) -> Conversation:
    question: Message = {"role": "user", "content": f"When does shop {row} open?"}
    return Conversation(row, [question, {"role": "assistant", "content": f"At {row % 12} o'clock."}])


def trainers_that_marked(service: Service) -> list[int]:
    """The processes that took up jobs, in order."""
    lines = (service.settings.results_dir / "marks.txt").read_text().splitlines()
    return [int(line.split()[4]) for line in lines if line.startswith("start")]
