"""What a measurement stands on: a folder for it, the model, the rows in each trainer's form, and this machine."""

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from app.bootstrap import build_base_models, load_settings
from app.core.entities.datasets import SPLITS, Conversation
from app.implementations.data.cuts import write_split
from app.implementations.data.tokenization import FolderChatTokenizer
from benchmarks.arithmetic import Product
from benchmarks.processes import ROOT, Finished, run, say, tail
from benchmarks.rows import Row, write_rows
from benchmarks.spec import Settings, Spec

STARTER = "smollm2-135m-instruct"
MODELS = ("smollm2", "r1-shape")


@dataclass(frozen=True, slots=True)
class Data:
    """One list of rows as both kinds of trainer read it; counts are of one pass over them."""

    dataset: Path
    tokens: Path
    rows: int
    input_tokens: int
    trained_tokens: int
    longest: int


@dataclass(frozen=True, slots=True)
class TrainerRun:
    spec: Spec
    finished: Finished
    log: Path


@dataclass(frozen=True, slots=True)
class Workbench:
    """``folder`` holds what the processes leave. ``threads`` is for each of them."""

    folder: Path
    model: Path
    threads: int

    def lay_out(self, name: str, rows: Sequence[Row], max_length: int) -> Data:
        """Write the rows, and their token ids and labels by this project's tokenization."""
        folder = self.folder / name.replace(" ", "-")
        folder.mkdir()
        write_rows(folder / "rows.json", rows)
        tokenizer = FolderChatTokenizer(self.model)
        encoded = [tokenizer.encode_training(row["messages"], max_length) for row in rows]
        for split in SPLITS:
            chosen = enumerate(rows if split == "train" else (), start=1)
            write_split(folder, split, [Conversation(place, row["messages"]) for place, row in chosen])
        tokens = folder / "tokens.jsonl"
        tokens.write_text(
            "".join(
                json.dumps({"input_ids": list(row.input_ids), "labels": list(row.labels)}) + "\n"
                for row in encoded
            ),
            "utf-8",
        )
        return Data(
            dataset=folder,
            tokens=tokens,
            rows=len(rows),
            input_tokens=sum(row.tokens for row in encoded),
            trained_tokens=sum(row.supervised for row in encoded),
            longest=max(row.tokens for row in encoded),
        )

    def train(
        self, name: str, command: Sequence[str | Path], data: Data, settings: Settings, options: Sequence[str] = ()
    ) -> TrainerRun:
        """Run a trainer's process, in a folder of its own: ``command SPEC options``."""
        output = self.folder / name.replace(" ", "-")
        output.mkdir()
        spec = Spec(
            model=str(self.model),
            dataset=str(data.dataset),
            tokens=str(data.tokens),
            output=str(output),
            settings=settings,
            threads=self.threads,
            memory_limit=psutil.virtual_memory().available,
        )
        log = output / "log.txt"
        finished = run(
            name, [*command, spec.write(), *options], log, threads=self.threads, progress=output / "progress"
        )
        return TrainerRun(spec, finished, log)

    def ask(self, title: str, module: str, told: Mapping[str, Any]) -> Any:
        """What the ``module`` of this package answers; ``SystemExit`` if it fails."""
        name = title.replace(" ", "-")
        question, answers, log = (self.folder / f"{name}.{kind}" for kind in ("told.json", "answer.json", "log"))
        question.write_text(json.dumps({"threads": self.threads, **told}), "utf-8")
        command: list[str | Path] = [sys.executable, "-m", f"benchmarks.{module}", question]
        if run(title, command, log, threads=self.threads, answers=answers).status:
            raise SystemExit(f"{title} failed (all of it: {log}):\n{tail(log)}")
        return json.loads(answers.read_text("utf-8"))

    def flop_per_second(self, title: str, products: Sequence[Product]) -> float:
        told = {"products": [asdict(product) for product in products]}
        return float(self.ask(title, "measure_matmul", told)["flop_per_second"])

    def model_config(self) -> Mapping[str, Any]:
        config: Mapping[str, Any] = json.loads((self.model / "config.json").read_text("utf-8"))
        return config


def open_workbench(kind: str, model: str, threads: int) -> Workbench:
    """A new folder ``results/benchmarks/<kind>-<time>``, and the model, fetched or made where it is missing."""
    settings = load_settings()
    folder = settings.results_dir / "benchmarks" / f"{kind}-{datetime.now():%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    bases = build_base_models(settings)
    if not bases.present(STARTER):
        _make(folder, "the starter model", threads, "flask", "--app", "run", "models", "pull", STARTER)
    starter = bases.folder(STARTER)
    if model == "smollm2":
        return Workbench(folder, starter, threads)
    shape = ROOT / "benchmarks" / ".models" / model
    if not shape.is_dir():
        title = f"a random model of 1.78 B parameters, 3.6 GB, in {shape.relative_to(ROOT)}"
        _make(folder, title, threads, "benchmarks.random_model", str(shape), str(starter))
    return Workbench(folder, shape, threads)


def _make(folder: Path, title: str, threads: int, *module: str) -> None:
    """In a process of its own: what this one holds in memory would count for those that it starts."""
    say(title)
    log = folder / "model.log"
    if run(title, [sys.executable, "-m", *module], log, threads=threads).status:
        raise SystemExit(f"{title} could not be made (all of it: {log}):\n{tail(log)}")


def save(bench: Workbench, found: Mapping[str, Any], text: str) -> None:
    """``found`` beside the bench's folder, under its name; ``text`` and the file's place to the terminal."""
    file = bench.folder.with_suffix(".json")
    file.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(f"{text}\n\nwritten to {file}")


def machine(threads: int) -> dict[str, Any]:
    """What a reading holds for."""
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(),
        "threads": threads,
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    """With the instructions that multiply bf16, if Linux says so."""
    file = Path("/proc/cpuinfo")
    if not file.is_file():
        return platform.processor()
    known = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in known.items()}
    bf16 = sorted({*fields.get("flags", "").split()} & {"amx_bf16", "avx512_bf16", "avx512f"})
    return " ".join([fields.get("model name", platform.processor()), *bf16])
