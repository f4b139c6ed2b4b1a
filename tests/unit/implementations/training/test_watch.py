"""The reporter that fans out: what each listener hears, and that no tracker can hurt a run."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import Reporter, Tracker, TrainerJob, TrainingStopped
from app.implementations.training import follower, samples, watch
from app.implementations.training.watch import Watch

LONG = 30.0  # seconds; far beyond what anything below takes


class Inner(Reporter):
    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def message(self, text: str, level: str = "info") -> None:
        self.events.append((level, text))

    def metrics(self, step: int, total_steps: int, figures: Mapping[str, float | None]) -> None:
        self.events.append(("metrics", step, total_steps, dict(figures)))

    def should_stop(self) -> bool:
        return True

    @property
    def warnings(self) -> list[str]:
        return [event[1] for event in self.events if event[0] == "warn"]


class Remembering(Tracker):
    """Raises in the method named ``fails``; waits for ``gate`` before it logs."""

    def __init__(self, fails: str = "", gate: threading.Event | None = None) -> None:
        self.fails, self.gate = fails, gate
        self.calls: list[tuple[Any, ...]] = []

    def start(self, job: TrainerJob) -> None:
        self._call("start", job.job_id)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        if self.gate is not None:
            self.gate.wait()
        self._call("log", step, dict(figures))

    def text(self, step: int, name: str, text: str) -> None:
        self._call("text", step, name, text)

    def finish(self, succeeded: bool) -> None:
        self._call("finish", succeeded)

    def _call(self, *call: Any) -> None:
        self.calls.append(call)
        if call[0] == self.fails:
            raise ConnectionError("https://user:secret@tracking.example")


@pytest.fixture
def job(tmp_path: Path) -> TrainerJob:
    return TrainerJob("ftjob-1", 1, "torch", TrainingConfig(), tmp_path, tmp_path, tmp_path, threads=1)


@pytest.fixture
def inner() -> Inner:
    return Inner()


@pytest.fixture
def watching(job: TrainerJob, inner: Inner) -> Callable[..., Watch]:
    def make(**trackers: Tracker) -> Watch:
        return Watch(inner, job, trackers, torch.device("cpu"))

    return make


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """A server that hangs until the test is over."""
    event = threading.Event()
    yield event
    event.set()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_everyone_hears_of_the_run(watching: Callable[..., Watch], inner: Inner) -> None:
    one, other = Remembering(), Remembering()
    figures = {"loss": 2.0, "learning_rate": 1e-3, "eta_seconds": None, "grad_norm": float("inf")}
    with watching(one=one, other=other) as report:
        report.message("loading")
        report.metrics(1, 9, figures)
        report.metrics(1, 9, {"eval_loss": 1.5, "perplexity": 4.5})
        assert report.should_stop()

    assert inner.events[0] == ("info", "loading")
    (_, step, total, heard), evaluation = inner.events[1:]
    assert (step, total) == (1, 9)
    assert figures.items() <= heard.items()
    assert heard["cpu_percent"] >= 0
    assert heard["memory_bytes"] > 1e6
    assert evaluation == ("metrics", 1, 9, {"eval_loss": 1.5, "perplexity": 4.5})  # within the same second
    shown = {"train/loss": 2.0, "train/learning_rate": 1e-3}
    system = {f"system/{name}": heard[name] for name in ("cpu_percent", "memory_bytes")}
    assert one.calls == other.calls
    assert one.calls == [
        ("start", "ftjob-1"),
        ("log", 1, shown | system),
        ("log", 1, {"eval/loss": 1.5, "eval/perplexity": 4.5}),
        ("finish", True),
    ]


def test_samples_go_into_messages_a_file_and_the_trackers(
    watching: Callable[..., Watch], inner: Inner, job: TrainerJob
) -> None:
    tracker = Remembering()
    with watching(one=tracker) as report:
        report.samples(3, [("When?", "At\nnoon."), ("Where " * 99, "")])

    assert [event[1] for event in inner.events] == [
        "step 3: When? → At noon.",
        f"step 3: {('Where ' * 99)[:159]}… → ",
    ]
    assert tracker.calls[1] == ("text", 3, "samples/1", "When?\n\n→ At\nnoon.")
    lines = [json.loads(line) for line in (job.run_folder / "samples.jsonl").read_text().splitlines()]
    assert lines[0] == {"step": 3, "prompt": "When?", "answer": "At\nnoon."}
    assert len(lines) == 2


@pytest.mark.parametrize("method", ["start", "log", "text", "finish"])
def test_a_tracker_that_fails_is_left_out_with_one_warning(
    watching: Callable[..., Watch], inner: Inner, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = Remembering(), Remembering(fails=method)
    with watching(good=good, bad=bad) as report:
        for step in (1, 2, 3):
            report.metrics(step, 3, {"loss": 1.0})
            report.samples(step, [("?", "!")])
            time.sleep(0.05)

    (warning,) = inner.warnings
    assert warning.startswith("report_to: bad failed (ConnectionError)")
    assert "secret" not in warning
    assert "secret" in caplog.text  # logs.txt
    assert bad.calls[-1][0] == method
    assert [call[0] for call in good.calls] == ["start", *["log", "text"] * 3, "finish"]
    assert sum(event[0] == "metrics" for event in inner.events) == 3


def test_a_server_that_hangs_costs_no_step(
    watching: Callable[..., Watch], inner: Inner, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "FINISH_SECONDS", 0.2)
    started = time.monotonic()
    with watching(slow=Remembering(gate=gate)) as report:
        for step in range(1, 101):
            report.metrics(step, 100, {"loss": 1.0})
    assert time.monotonic() - started < LONG
    assert inner.warnings == ["report_to: slow did not finish in time: its record may lack the end"]


def test_one_that_does_not_keep_up_is_left_out(
    watching: Callable[..., Watch], inner: Inner, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "QUEUE_LENGTH", 5)
    slow = Remembering(gate=gate)
    with watching(slow=slow) as report:
        for step in range(1, 11):
            report.metrics(step, 10, {"loss": 1.0})
    assert inner.warnings == ["report_to: slow does not keep up and is left out"]
    assert slow.calls == [("start", "ftjob-1")]


def test_a_stopped_run_is_drawn_and_not_called_a_success(watching: Callable[..., Watch], job: TrainerJob) -> None:
    tracker = Remembering()

    def stopped_run() -> None:
        with watching(one=tracker) as report:
            report.metrics(1, 9, {"loss": 1.0, "learning_rate": 1e-3})
            raise TrainingStopped

    with pytest.raises(TrainingStopped):
        stopped_run()
    assert tracker.calls[-1] == ("finish", False)
    assert (job.run_folder / "loss_curve.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_step_there_is_no_picture(watching: Callable[..., Watch], job: TrainerJob) -> None:
    with watching() as report:
        report.message("nothing to do")
    assert list(job.run_folder.iterdir()) == []


def test_files_that_cannot_be_written_do_not_end_the_run(
    watching: Callable[..., Watch], inner: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(watch, "write_whole", full)
    monkeypatch.setattr(samples, "write_whole", full)
    with watching() as report:
        report.metrics(1, 1, {"loss": 1.0})
        report.samples(1, [("?", "!")])
    assert [warning.split()[0] for warning in inner.warnings] == ["samples.jsonl", "loss_curve.png"]
