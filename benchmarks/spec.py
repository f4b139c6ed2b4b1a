"""What a measured process is told, what it answers, and how it says where it is.

The standard library only: each trainer runs in an environment of its own.
"""

import json
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Settings:
    """The training that all of them do. LoRA on every linear layer but the head, float32 adapters, AdamW."""

    lora_rank: int = 8
    lora_alpha: int = 16
    learning_rate: float = 5e-4
    schedule: str = "linear"  # to zero, without warm-up
    max_grad_norm: float = 1.0
    batch_size: int = 4  # rows in an optimizer step
    epochs: int = 2
    max_length: int = 1024  # tokens; no row is longer, unless a report cuts its rows to it
    seed: int = 42
    # For this project's trainer alone:
    kernels: str | tuple[str, ...] = "auto"
    strategy: str = "single"
    processes: int = 1  # each makes a forward pass over its share of batch_size


@dataclass(frozen=True, slots=True)
class Spec:
    """The job of one process. Folders and files are absolute; a file with these keys is its only argument."""

    model: str  # a folder
    dataset: str  # a folder with train.parquet, as this project's trainer reads it
    tokens: str  # the same rows as token ids and labels, one JSON object a line, for the peers
    output: str  # a folder of its own: adapter, answer, progress
    settings: Settings
    threads: int
    memory_limit: int  # bytes; beyond it the process fails, and not its neighbours

    def write(self) -> Path:
        file = Path(self.output) / "spec.json"
        file.write_text(json.dumps(asdict(self), indent=2) + "\n", "utf-8")
        return file


@dataclass(frozen=True, slots=True)
class Answer:
    """What a process leaves in ``answer.json``. Times in seconds."""

    train_runtime: float  # of the training loop: model loading and saving the adapter left out
    step_ends: list[float]  # on a clock of its own, one an optimizer step
    input_tokens: int  # real ones over all epochs; padding does not count
    trained_tokens: int  # those with a label, over all epochs
    adapter: str  # a folder that PEFT opens
    versions: dict[str, str]


def read_spec() -> Spec:
    """From the file that the command line names, with the limit on memory set."""
    told = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    spec = Spec(**{**told, "settings": Settings(**told["settings"])})
    resource.setrlimit(resource.RLIMIT_DATA, (spec.memory_limit, spec.memory_limit))
    return spec


def read_token_rows(spec: Spec) -> list[Mapping[str, list[int]]]:
    """``input_ids`` and ``labels`` of each row; a label of -100 is no target."""
    return [json.loads(line) for line in Path(spec.tokens).read_text("utf-8").splitlines()]


def answer(spec: Spec, found: Answer) -> None:
    (Path(spec.output) / "answer.json").write_text(json.dumps(asdict(found)) + "\n", "utf-8")


def read_answer(spec: Spec) -> Answer:
    known: dict[str, Any] = json.loads((Path(spec.output) / "answer.json").read_text("utf-8"))
    return Answer(**known)


class Stopwatch:
    """Stamps the end of each optimizer step, and leaves ``step/total`` where the watching process looks."""

    def __init__(self, spec: Spec) -> None:
        self.step_ends: list[float] = []
        self._progress = Path(spec.output) / "progress"

    def step_ended(self, step: int, total: int) -> None:
        self.step_ends.append(time.perf_counter())
        self._progress.write_text(f"step {step}/{total}", "utf-8")
