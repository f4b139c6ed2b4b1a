"""What each augmenter does to the held-out fact score: ``python -m benchmarks.augmentation``.

The small model of `flask lab demo` is made from scratch on the sample data, once for each seed, and answers are
then trained on the rows as they are and on the rows with those of one augmenter. An augmenter about doubles the
rows, so the rows as they are train twice as long as well: what is better than both is the augmenter's own doing.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import mean
from typing import Any, get_args

from app import create_app
from app.bootstrap import load_settings, load_training_config, prepare_instance
from app.core.entities.data_pipeline import AugmenterName, PipelineConfig
from app.core.entities.datasets import SPLITS, Conversation
from app.core.entities.jobs import JobState
from app.core.processors.pipeline import run_pipeline
from app.implementations.data.store import FileDatasetStore
from app.lab.terminal import SMALL
from app.model.training_service import train
from benchmarks.arithmetic import markdown_table
from benchmarks.processes import ROOT, say
from benchmarks.workbench import machine

SAMPLE = "data/raw/sample_data.json"
PLAIN, LONGER = "none", "none, twice the passes"
VARIANTS = (PLAIN, LONGER, *get_args(AugmenterName))


@dataclass(frozen=True, slots=True)
class Reading:
    variant: str
    seed: int
    training_rows: int
    correct: Mapping[str, int]  # by language
    asked: Mapping[str, int]
    seconds: float


class Bench:
    """An installation of its own in ``folder``: database, models and versions."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        places = {f"{name}_dir": folder / name for name in ("instance", "data", "models", "results")}
        self._app = create_app(load_settings(log_level="WARNING", **places), inline=True)
        prepare_instance(self._app)
        self._services = self._app.extensions["services"]
        self._services.models.pull(SMALL.name)

    def readings(self, seed: int, variants: Sequence[str]) -> Sequence[Reading]:
        prepared = self._services.datasets.prepare(str(ROOT / SAMPLE), seed, trusted=True)
        store = FileDatasetStore(self._folder / "data", formats=(), max_bytes=0)
        rows = [row for split in SPLITS for row in store.rows(prepared, split)]
        text = self._trained("tiny_pretrain.yaml", f"text-{seed}", ROOT / SAMPLE, seed, SMALL.pretrain)
        found = []
        for variant in variants:
            found.append(self._reading(variant, seed, rows, text))
            say(f"{variant}, seed {seed}: {_shown(found[-1], 'en')} in {found[-1].seconds:.0f} s")
        return found

    def _reading(self, variant: str, seed: int, rows: Sequence[Conversation], text: str) -> Reading:
        started = time.perf_counter()
        augmenters = [] if variant in (PLAIN, LONGER) else [variant]
        raw = {"seed": seed, "steps": ["split", "augment"], "augmentation": {"augmenters": augmenters}}
        ready = run_pipeline(rows, PipelineConfig.model_validate(raw)).rows
        name = f"{variant.replace(', ', '-').replace(' ', '-')}-{seed}"
        file = self._folder / f"{name}.json"
        file.write_text(json.dumps([_as_row(row) for row in ready], ensure_ascii=False), "utf-8")
        changes = {**SMALL.sft, "from_version": text}
        if variant == LONGER:
            changes["num_epochs"] *= 2
        version = self._trained("tiny_sft.yaml", name, file, seed, changes)
        scores = self._services.evaluation.evaluate(version, str(ROOT / SAMPLE), split="test").scores()
        return Reading(
            variant,
            seed,
            training_rows=sum(row.split == "train" for row in ready),
            correct={group: score.correct for group, score in scores.items()},
            asked={group: score.total for group, score in scores.items()},
            seconds=time.perf_counter() - started,
        )

    def _trained(self, file: str, name: str, dataset: Path, seed: int, changes: Mapping[str, Any]) -> str:
        """The reference of what was published."""
        names = {"base_model": SMALL.name, "model_name": name, "experiment_name": name}
        place = {"dataset_path": str(dataset), "seed": seed, "report_to": "none"}
        job = train(self._app, load_training_config(ROOT / "config" / file, **names, **place, **changes))
        if job.state is not JobState.SUCCEEDED:
            raise SystemExit(f"the training of {name} did not succeed: {job.error}")
        return str(self._services.models.version(job.model_version_id or "").reference)


def main() -> None:
    options = _options()
    folder = ROOT / "results" / "benchmarks" / f"augmentation-{datetime.now():%Y%m%d-%H%M%S}"
    folder.mkdir(parents=True)
    bench = Bench(folder)
    readings = [reading for seed in options.seeds for reading in bench.readings(seed, options.only)]
    file = folder.with_suffix(".json")
    about = {"machine": machine(1), "readings": [asdict(reading) for reading in readings]}
    file.write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    print(f"{_table(readings, options.seeds)}\n\nwritten to {file}")


def _as_row(row: Conversation) -> Mapping[str, Any]:
    return {**row.extra, "split": row.split, "messages": row.messages}


def _table(readings: Sequence[Reading], seeds: Sequence[int]) -> str:
    """A line a variant: English answers with the right fact for each seed, and the means of both languages."""
    head = ("augmenter", "training rows", *(f"en, seed {seed}" for seed in seeds), "en, mean", "zh, mean")
    variants = {reading.variant: [r for r in readings if r.variant == reading.variant] for reading in readings}
    rows = [
        (
            variant,
            f"{own[0].training_rows:,}",
            *(_shown(reading, "en") for reading in own),
            *(f"{mean(r.correct[group] / r.asked[group] for r in own):.0%}" for group in ("en", "zh")),
        )
        for variant, own in variants.items()
    ]
    return markdown_table(head, rows)


def _shown(reading: Reading, group: str) -> str:
    return f"{reading.correct[group]}/{reading.asked[group]}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.augmentation", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[42, 43], help="one training of each variant for each"
    )
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=VARIANTS, metavar="NAME")
    return parser.parse_args()


if __name__ == "__main__":
    main()
