"""Everything that is watched of a run, on its way out of the trainer."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self

import torch

from app.core.interfaces.components import Reporter, Tracker, TrainerJob, TrainingStopped
from app.implementations.training.follower import Follower
from app.implementations.training.loss_curve import Curve, draw, earlier_curve, png
from app.implementations.training.resources import Resources
from app.implementations.training.samples import SampleFile
from app.utils.files import write_whole

FINISH_SECONDS = 30.0  # for the trackers' last words, all together
STOP_SECONDS = 1.0  # the same, where the worker waits three seconds for a trainer that it stops
SHOWN = 160  # characters of a sample in a message

log = logging.getLogger(__name__)  # to logs.txt; unlike print it does not raise where that finds no room


class Watch(Reporter):
    """Passes on what a runner says, with the machine's figures, and shows it to the trackers.

    As a context, around the run: in the end it writes ``loss_curve.png`` and lets the trackers finish.
    """

    def __init__(
        self, inner: Reporter, job: TrainerJob, trackers: Mapping[str, Tracker], device: torch.device
    ) -> None:
        self._inner = inner
        self._job = job
        self._resources = Resources(device)
        self._curve = Curve()
        self._samples = SampleFile(job.run_folder / "samples.jsonl")
        self._followers = [Follower(name, tracker, job) for name, tracker in trackers.items()]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for follower in self._followers:
            follower.finish(kind is None)
        until = time.monotonic() + (STOP_SECONDS if kind is TrainingStopped else FINISH_SECONDS)
        self._draw()
        for follower in self._followers:
            follower.join(until - time.monotonic())
        self._leave_out_failed()

    def message(self, text: str, level: str = "info") -> None:
        self._inner.message(text, level)

    def metrics(self, step: int, total_steps: int, figures: Mapping[str, float | None]) -> None:
        every = {**figures, **self._resources.read()}
        self._inner.metrics(step, total_steps, every)
        self._curve.add(step, every)
        shown = {
            _grouped(name): value for name, value in every.items() if value is not None and math.isfinite(value)
        }
        for follower in self._followers:
            follower.send(partial(follower.tracker.log, step, shown))
        self._leave_out_failed()

    def should_stop(self) -> bool:
        return self._inner.should_stop()

    def samples(self, step: int, answers: Sequence[tuple[str, str]]) -> None:
        """(prompt, answer) pairs: messages, ``samples.jsonl`` and the trackers' texts."""
        try:
            self._samples.add(step, answers, self._curve.first_step or step)
        except (OSError, ValueError):  # a full disk, or a file that is not ours
            log.warning("samples.jsonl", exc_info=True)
            self._inner.message("samples.jsonl could not be written; see the run's logs.txt", "warn")
        for number, (prompt, answer) in enumerate(answers, 1):
            self._inner.message(f"step {step}: {_short(prompt)} → {_short(answer)}")
            for follower in self._followers:
                name = f"samples/{number}"
                follower.send(partial(follower.tracker.text, step, name, f"{prompt}\n\n→ {answer}"))

    def mean_cpu_percent(self) -> float:
        """See ``Resources``."""
        return self._resources.mean_cpu_percent()

    def _draw(self) -> None:
        if self._curve.first_step is None:
            return
        config = self._job.config
        try:
            whole = self._curve.after(earlier_curve(self._job.run_folder, self._curve.first_step))
            picture = png(draw(whole, f"{config.experiment_name} · {config.base_model}"))
            write_whole(self._job.run_folder / "loss_curve.png", picture)
        except Exception:  # the run is worth more than its picture
            log.warning("loss_curve.png", exc_info=True)
            self._inner.message("loss_curve.png could not be written; see the run's logs.txt", "warn")

    def _leave_out_failed(self) -> None:
        for follower in [follower for follower in self._followers if follower.problem]:
            self._followers.remove(follower)
            self._inner.message(str(follower.problem), "warn")


def _grouped(name: str) -> str:
    if name in ("cpu_percent", "memory_bytes", "gpu_memory_bytes", "gpu_utilization"):
        return f"system/{name}"
    if name == "perplexity":
        return "eval/perplexity"
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
