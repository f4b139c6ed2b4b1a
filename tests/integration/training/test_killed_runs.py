"""Trainers ended by SIGKILL at an exact place, and others that go on: bit for bit as a run left alone."""

import json
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.core.entities.datasets import Conversation
from app.core.entities.models import BaseModelSpec
from app.core.entities.training_config import TrainingConfig
from app.core.services.jobs.resuming import checkpoints_in
from app.implementations.data.cuts import write_split
from app.implementations.queue.trainer_launcher import ProcessTrainerLauncher
from app.registries import BASE_MODEL_SOURCES
from app.utils.clock import boottime
from tests.killing import arm_trainers

SECONDS = 300.0
ADAPTER = "artifacts/adapter_model.safetensors"
CONFIG: dict[str, Any] = {
    "base_model": "tiny",
    "num_epochs": 3,
    "batch_size": 2,
    "gradient_accumulation_steps": 2,
    "eval_steps": 2,
    "save_steps": 1,
    "save_total_limit": 1,
    "learning_rate": 1e-2,
    "warmup_ratio": 0.2,
    "lora": {"r": 4, "lora_dropout": 0.1},
    "device": "cpu",
}
# 14 rows: micro-batches of 2 rows, in steps of 2, 2, 2 and 1 of them, and an epoch is done. Two micro-batches of
# validation rows follow the second step and the fourth.
PACKS_AN_EPOCH = 7 + 2 + 2
PLACES = {
    "inside an accumulation window": "pack:4",
    "at an epoch's edge, while it evaluates": f"pack:{PACKS_AN_EPOCH - 1}",
    "in the middle of the second epoch": f"pack:{PACKS_AN_EPOCH + 3}",
    "while a checkpoint is written": "seal:6",
}


def chats(place: int) -> dict[str, Any]:
    question = {"role": "user", "content": f"When does shop {place} open?"}
    answer = {"role": "assistant", "content": f"Shop {place} opens at {place % 12} o'clock."}
    return {"row": place, "messages": [question, answer]}


def pairs(place: int) -> dict[str, Any]:
    row = chats(place)
    return row | {"rejected": {"role": "assistant", "content": f"I do not know shop {place}."}}


def texts(place: int) -> dict[str, Any]:
    return {"row": place, "messages": [], "text": f"Shop {place} opens at {place % 12} o'clock."}


def labelled(place: int) -> dict[str, Any]:
    return texts(place) | {"label": "late" if place % 2 else "early"}


# An objective's rows, as a cut of the data holds them.
OBJECTIVES: dict[str, Callable[[int], dict[str, Any]]] = {
    "sft": chats,
    "dpo": pairs,
    "pretrain": texts,
    "classification": labelled,
}


@dataclass
class Run:
    """What one or more attempts at a job left. ``losses`` and ``evaluations`` by step, a later attempt's over."""

    folder: Path
    attempts: int
    resumed_from: int
    losses: dict[int, float]
    evaluations: dict[int, float]

    @property
    def adapter(self) -> bytes:
        return (self.folder / ADAPTER).read_bytes()


@dataclass
class Bench:
    """Trains one config in processes of its own, in a folder of its own a run."""

    folder: Path
    base: Path
    objective: str
    precision: str

    def run(self, name: str, kill_at: str | None = None) -> Run:
        """Attempts until one ends well; the first is killed at ``kill_at``."""
        folder = self.folder / name
        dataset = folder / "dataset"
        dataset.mkdir(parents=True)
        for split, first, count in (("train", 1, 14), ("validation", 101, 4), ("test", 201, 1)):
            rows = [OBJECTIVES[self.objective](row) for row in range(first, first + count)]
            write_split(dataset, split, [Conversation(**row) for row in rows])
        losses: dict[int, float] = {}
        evaluations: dict[int, float] = {}
        resumed_from = 0
        for attempt in (1, 2) if kill_at else (1,):
            with pytest.MonkeyPatch.context() as patch:
                if attempt == 1 and kill_at:
                    arm_trainers(folder, kill_at, patch)
                messages = self._attempt(
                    folder, attempt, losses, evaluations, killed=attempt == 1 and bool(kill_at)
                )
            assert not [message for message in messages if "not to the bit" in message]
            gone_on = [message for message in messages if message.startswith("going on from step ")]
            resumed_from = int(gone_on[0].rsplit(" ", 1)[1]) if gone_on else 0
        return Run(folder, attempt, resumed_from, losses, evaluations)

    def _attempt(
        self, folder: Path, attempt: int, losses: dict[int, float], evaluations: dict[int, float], *, killed: bool
    ) -> list[str]:
        config = TrainingConfig(**CONFIG, objective=self.objective, precision=self.precision)
        attempt_folder = folder / "attempts" / str(attempt)
        attempt_folder.mkdir(parents=True)
        job_file = {
            "job_id": "ftjob-1",
            "attempt": attempt,
            "runner": "torch",
            "config": config.model_dump(mode="json"),
            "base_model_folder": str(self.base),
            "dataset_folder": str(folder / "dataset"),
            "run_folder": str(folder),
            "threads": 1,
        }
        handle = ProcessTrainerLauncher().start(job_file, attempt_folder, boottime() + SECONDS)
        try:
            while not handle.wait(SECONDS):  # its lease ends it, if nothing else does
                pass
            outcome = handle.outcome()
            events = handle.new_events()
        finally:
            handle.kill()
        log = (folder / "logs.txt").read_text()
        if killed:
            assert outcome.kind == "crashed", log
            assert signal.SIGKILL.name in (outcome.message or "")
        else:
            assert outcome.kind == "succeeded", log
        for event in events:
            if event.type == "metrics":
                kept, key = (evaluations, "eval_loss") if "eval_loss" in event.data else (losses, "loss")
                kept[event.data["step"]] = event.data[key]
        return [event.message for event in events if event.type == "message"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    BASE_MODEL_SOURCES.load("random")(BaseModelSpec("tiny", "random", "llama"), folder)
    return folder


@pytest.fixture(scope="module")
def left_alone(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], tuple[Bench, Run]]:
    """The run that nobody kills, once for each objective and precision."""
    known: dict[tuple[str, str], tuple[Bench, Run]] = {}

    def find(objective: str, precision: str) -> tuple[Bench, Run]:
        if (objective, precision) not in known:
            bench = Bench(tmp_path_factory.mktemp("runs"), base, objective, precision)
            known[objective, precision] = bench, bench.run("left alone")
        return known[objective, precision]

    return find


def same(killed: Run, whole: Run) -> None:
    assert killed.attempts == 2
    assert killed.losses == whole.losses
    assert killed.evaluations == whole.evaluations
    assert killed.adapter == whole.adapter
    figures = [json.loads((run.folder / "metrics.json").read_text()) for run in (killed, whole)]
    for figure in ("train_loss", "eval_loss", "input_tokens", "trained_tokens", "evaluations"):
        assert figures[0][figure] == figures[1][figure]
    # Nothing is left of the attempt that was killed but what a sweep removes a day later.
    assert len(checkpoints_in(killed.folder / "checkpoints" / "ftjob-1")) == CONFIG["save_total_limit"]


CASES = [
    ("inside an accumulation window", "fp32", 1),
    ("at an epoch's edge, while it evaluates", "bf16", 3),
    ("in the middle of the second epoch", "fp32", 5),
    ("while a checkpoint is written", "bf16", 5),
]
EVERY_DAY = [("sft", CASES[0]), ("sft", CASES[1]), ("sft", CASES[3]), ("dpo", CASES[0])]


@pytest.mark.parametrize(
    ("objective", "place", "precision", "resumed_from"),
    [
        pytest.param(objective, *case, marks=[] if (objective, case) in EVERY_DAY else pytest.mark.slow)
        for objective in OBJECTIVES
        for case in CASES
    ],
)
def test_a_run_that_was_killed_goes_on_bit_for_bit(left_alone, objective, place, precision, resumed_from):
    bench, whole = left_alone(objective, precision)
    killed = bench.run(place, kill_at=PLACES[place])

    assert killed.resumed_from == resumed_from
    same(killed, whole)


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("number", range(20))
def test_wherever_it_was_killed(left_alone, objective, number):
    """20 places drawn with one seed, in both precisions by turns."""
    last = random.Random(number).randint(1, CONFIG["num_epochs"] * PACKS_AN_EPOCH)
    bench, whole = left_alone(objective, ("fp32", "bf16")[number % 2])

    same(bench.run(f"killed {number}", kill_at=f"pack:{last}"), whole)
