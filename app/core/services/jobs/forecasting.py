"""Forecasts of runs: kept ones, or made by a rehearsal in a trainer process; and whether a run fits this host."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.core.entities.forecasts import Estimate, Forecast, in_gigabytes
from app.core.entities.training_config import TrainingConfig
from app.core.errors import AppError, DiskFull, Invalid, Unavailable
from app.core.factories import ADAPTATIONS
from app.core.interfaces.operations import TrainerLauncher, TrainerOutcome
from app.core.services.jobs.children import run_child
from app.core.services.jobs.room import FORECASTS, needs_room
from app.utils.files import write_whole
from app.utils.folders import locked

REHEARSAL_SECONDS = 90.0  # from its process' start to its end; it takes a tenth of that where nothing else runs
NEAR = 0.6  # of what is available: a rough figure below it needs no rehearsal
ROOM = 0.9  # of what is available, which a suggestion takes at most
MOST_KEPT = 1000
LOG_CHARACTERS = 2000  # of a failed rehearsal's, which goes with its folder
CHECKPOINTED = 0.25  # of a token's memory, with gradient_checkpointing
BASE_BYTES = 600_000_000  # torch and its libraries
# Keys of the config that change neither the memory of a run nor its time.
_FREE = frozenset(
    [
        "experiment_name",
        "model_name",
        "output_dir",
        "dataset_path",
        "dataset_id",
        "pipeline",
        "learning_rate",
        "lr_schedule",
        "warmup_steps",
        "warmup_ratio",
        "weight_decay",
        "max_grad_norm",
        "logging_steps",
        "dpo_beta",
        "early_stopping_threshold",
    ]
)

log = logging.getLogger(__name__)


class Forecasts:
    """``launcher`` starts rehearsals, ``runner`` does their work; ``folder`` keeps what they found; ``available``
    tells the free bytes of the device that a config's ``device`` means; ``threads`` is what a trainer may use."""

    def __init__(
        self,
        launcher: TrainerLauncher,
        runner: str,
        folder: Path,
        available: Callable[[str], int],
        threads: int,
        seconds: float = REHEARSAL_SECONDS,
    ) -> None:
        self._launcher = launcher
        self._runner = runner
        self._folder = folder
        self._available = available
        self._threads = threads
        self._seconds = seconds

    def known(self, config: TrainingConfig, base: Path, dataset: Path) -> Forecast | None:
        """What was found before for this cut of data, base and config. ``dataset``'s name says its content."""
        with suppress(OSError, ValueError, TypeError):  # there is none, or another version of this code kept it
            return Forecast(**json.loads(self._place(config, base, dataset).read_text("utf-8")))
        return None

    def check_fit(
        self, config: TrainingConfig, base: Path, dataset: Path, longest_row: int, go_on: Callable[[], bool]
    ) -> None:
        """``Invalid`` (does_not_fit) with a setting that would. Rehearses only what may be near the limit."""
        found = self.known(config, base, dataset)
        if found is None:
            self.refuse_hopeless(config, base)
            near = NEAR * self._available(config.device)
            if rough_bytes(config, base, longest_row) * config.processes < near or not go_on():
                return
            try:
                with needs_room(FORECASTS), locked(self._folder / "rehearsal"):
                    found = self._rehearse(config, base, dataset, go_on)
            except (Unavailable, DiskFull) as error:  # not to know is no reason to fail
                log.warning("a job is queued without knowing whether it fits: %s", error)
                return
        judged = self.judge(config, found, base)
        if not judged.fits:
            raise _does_not_fit(judged, config)

    def judge(self, config: TrainingConfig, found: Forecast, base: Path) -> Estimate:
        """Say whether a run would fit this host, and with what it would if not."""
        on_host = found.free_bytes is None
        available = self._available(config.device) if on_host else found.free_bytes or 0
        processes = config.processes if on_host else 1  # of GPUs each has its own
        fits = found.peak_memory_bytes * processes <= available
        suggestion = None if fits else suggest(config, found, available // processes, weight_bytes(base))
        return Estimate(found, available, fits, suggestion)

    def refuse_hopeless(self, config: TrainingConfig, base: Path) -> None:
        """Raise ``Invalid`` (does_not_fit) where not even the weights fit: to rehearse could end the host."""
        least, available = weight_bytes(base), self._available(config.device)
        if least > available and not ADAPTATIONS.load(config.adaptation).quantised:
            raise Invalid(
                f"it cannot fit: the weights of {config.base_model} alone take {in_gigabytes(least)}, and "
                f"{in_gigabytes(available)} are free: take a smaller base model",
                code="does_not_fit",
            )

    def _rehearse(self, config: TrainingConfig, base: Path, dataset: Path, go_on: Callable[[], bool]) -> Forecast:
        """Measure a run's first steps in a child process. Raises as ``keep``."""
        with tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=self._folder) as folder:
            job_file = {
                **self.job_file(config, base, dataset),
                "job_id": "rehearsal",
                "attempt": 1,
                "runner": self._runner,
                "run_folder": folder,
                "threads": self._threads,
            }
            outcome = run_child(self._launcher, job_file, Path(folder), go_on, self._seconds)
            if outcome is not None and outcome.kind == "failed" and outcome.code == "trainer_failed":
                logs = (Path(folder) / "logs.txt").read_text("utf-8", "replace")
                log.error("a rehearsal failed: %s", logs[-LOG_CHARACTERS:])
        if outcome is None:
            raise Unavailable("the rehearsal that measures took too long", code="estimate_timeout")
        return self.keep(config, base, dataset, outcome)

    @staticmethod
    def job_file(config: TrainingConfig, base: Path, dataset: Path) -> Mapping[str, Any]:
        """Return what a rehearsal is told, beside what every child is told."""
        return {
            "config": config.model_dump(mode="json"),
            "processes": config.processes,
            "base_model_folder": str(base),
            "dataset_folder": str(dataset),
        }

    def keep(self, config: TrainingConfig, base: Path, dataset: Path, outcome: TrainerOutcome) -> Forecast:
        """Keep what a rehearsal found. ``Unavailable`` (estimate_failed), ``DiskFull``, or ``Invalid`` with what
        would end the run too."""
        if outcome.kind == "succeeded" and outcome.result is not None:
            found = Forecast(**outcome.result["forecast"])
            self._keep(self._place(config, base, dataset), found)
            return found
        raise rehearsal_error(outcome)

    def _place(self, config: TrainingConfig, base: Path, dataset: Path) -> Path:
        relevant = {key: value for key, value in config.model_dump(mode="json").items() if key not in _FREE}
        about = [relevant, weight_bytes(base), dataset.name, self._threads]
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        return self._folder / f"{name[:32]}.json"

    def _keep(self, place: Path, found: Forecast) -> None:
        with needs_room(FORECASTS):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, json.dumps(asdict(found)))
        kept = sorted(self._folder.glob("*.json"), key=lambda file: file.stat().st_mtime)
        for old in kept[:-MOST_KEPT]:
            old.unlink(missing_ok=True)


def rehearsal_error(outcome: TrainerOutcome) -> AppError:
    """Return what a rehearsal that did not succeed says of the run."""
    if outcome.code == "out_of_memory":
        return Invalid(
            "it cannot fit: memory ran out in a rehearsal of its first steps. Lower batch_size or max_length, "
            "or set gradient_checkpointing",
            code="does_not_fit",
        )
    if outcome.code == "disk_full":
        return DiskFull(f"the disk is full: {FORECASTS}")
    if outcome.code == "time_limit":
        return Unavailable(
            f"no estimate within {REHEARSAL_SECONDS:.0f} s: ask again when less runs here, or estimate a smaller "
            "batch_size",
            code="estimate_timeout",
        )
    if outcome.kind == "failed" and outcome.code != "trainer_failed":
        return Invalid(outcome.message or "", code=outcome.code, faults=outcome.faults)
    return Unavailable("the rehearsal that measures ended before its time", code="estimate_failed")


def weight_bytes(base: Path) -> int:
    return sum(file.stat().st_size for file in base.glob("*.safetensors"))


def rough_bytes(config: TrainingConfig, base: Path, longest_row: int) -> int:
    """An upper bound of a run's memory by the model's shape, without torch: rather too much than too little."""
    resting, of_token = _rough_parts(config, base)
    return round(resting + of_token * config.batch_size * longest_row)


def rough_forecast(config: TrainingConfig, base: Path) -> Forecast:
    """By the model's shape, with rows of max_length: its memory alone, and nothing of its time."""
    resting, of_token = _rough_parts(config, base)
    tokens = config.batch_size * config.max_length
    peak = round(resting + of_token * tokens)
    return Forecast(peak, 0.0, 0, 0, 0, 0, round(resting), of_token, tokens)


def _rough_parts(config: TrainingConfig, base: Path) -> tuple[float, float]:
    """Bytes that stay, and those of a token: of a layer a pass keeps about 16 values of the hidden size and 6 of
    the feed-forward's."""
    shape: Mapping[str, Any] = {}
    with suppress(OSError, ValueError):
        shape = json.loads((base / "config.json").read_text("utf-8"))
    width = 4 if config.precision == "fp32" else 2
    weights = weight_bytes(base) * width // 2
    hidden, layers = shape.get("hidden_size") or 0, shape.get("num_hidden_layers") or 0
    values = layers * (16 * hidden + 6 * (shape.get("intermediate_size") or 4 * hidden))
    kept = values * width * (CHECKPOINTED if config.gradient_checkpointing else 1)
    if "head" not in config.kernel_names:
        kept += 12 * (shape.get("vocab_size") or 0)  # the scores in float32, their gradient, and one copy
    learning = ADAPTATIONS.load(config.adaptation).learning_bytes
    return BASE_BYTES + (2 + learning) * weights, kept


def suggest(config: TrainingConfig, found: Forecast, available: int, weights: int) -> Mapping[str, Any] | None:
    """The least change of ``config`` with which a run would take ``ROOM`` of ``available`` bytes; None: nothing is
    enough. By arithmetic from ``found``: a pass keeps memory for each of its tokens."""
    fitting = first_fitting(config, found, available, weights)
    return None if fitting is None else fitting[0]


def first_fitting(
    config: TrainingConfig, found: Forecast, available: float, weights: int
) -> tuple[Mapping[str, Any], float] | None:
    """As ``suggest``, with the bytes that the run would take then."""
    limit = ROOM * available
    for changes, needed in _lighter(config, found, weights):
        if needed <= limit:
            with suppress(ValidationError):  # not every strategy takes every adaptation
                config.with_changes(**changes)
                return changes, needed
    return None


def _lighter(config: TrainingConfig, found: Forecast, weights: int) -> Iterator[tuple[dict[str, Any], float]]:
    """Changes, and the memory they leave; rows in an optimizer step stay as many as they were."""
    rests: list[tuple[dict[str, Any], float]] = [({}, found.resting_bytes)]
    kept: list[tuple[dict[str, Any], float]] = [({}, found.token_bytes)]
    least = _resting(config.adaptation)
    for name in sorted(ADAPTATIONS, key=_resting, reverse=True):  # of those alike the table's first
        if (resting := _resting(name)) < least:
            least = resting
            rests.append(({"adaptation": name}, BASE_BYTES + resting * weights))
    if not config.gradient_checkpointing:
        kept.append(({"gradient_checkpointing": True}, found.token_bytes * CHECKPOINTED))
    for lighter_rest, rest in rests:
        for lighter_kept, per_token in kept:
            changes: dict[str, Any] = {**lighter_rest, **lighter_kept}
            size = config.batch_size
            while True:
                tokens = found.largest_batch_tokens * size / config.batch_size
                if changes:
                    yield dict(changes), rest + per_token * tokens
                if size == 1:
                    break
                size //= 2
                rows = config.batch_size * config.gradient_accumulation_steps
                changes |= {"batch_size": size, "gradient_accumulation_steps": math.ceil(rows / size)}
        length = config.max_length
        while length >= 32:
            length //= 2
            yield {**changes, "max_length": length}, rest + kept[-1][1] * length


def _resting(adaptation: str) -> float:
    """Bytes that stay, by those of the weights."""
    declared = ADAPTATIONS.load(adaptation)
    return float(declared.resting_bytes + declared.learning_bytes)


def _does_not_fit(judged: Estimate, config: TrainingConfig) -> AppError:
    need = judged.forecast.peak_memory_bytes
    said = f"it needs about {in_gigabytes(need)} of memory"
    said += f" in each of {config.processes} processes" if config.processes > 1 else ""
    if judged.suggestion:
        keys = ", ".join(f"{key}: {json.dumps(value)}" for key, value in judged.suggestion.items())
        advice = f"this would fit: {keys}"
    else:
        advice = "no setting would fit: take a smaller base model"
    return Invalid(f"{said}, and {in_gigabytes(judged.available_bytes)} are free; {advice}", code="does_not_fit")
