"""What a run will take, from its plan and a few measured passes.

Steps, tokens and disk are arithmetic. Memory and time are measured on passes that are made anyway: a run's own
first steps, so that nothing is computed twice and the first step is not kept waiting; or, where nobody trains yet
(rehearsal.py), steps on a typical micro-batch and on the largest that the plan will meet, in a process that ends
with them.
"""

from __future__ import annotations

import ctypes
import json
import math
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from app.core.entities.datasets import TokenizedRow
from app.core.entities.forecasts import Forecast
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import Reporter
from app.implementations.models.devices import held_memory_bytes, peak_memory_bytes
from app.utils.files import write_whole

PASSES = 4  # measured, the first among them, which warms up
OWN_SECONDS = 20.0  # of a run's own steps, after which what was measured must do
SAMPLE_SECONDS = 0.004  # between two looks at the memory
FORWARD_SHARE = 0.4  # of a pass, until an evaluation was measured: half of the products, without the adapters' own
WRITE_BYTES_A_SECOND = 200e6  # a checkpoint: written, read for its sha256, brought to the disk
SAVE_SECONDS = 0.1
# What C's allocator loses on passes of ever other sizes, more with each of them, up to a share of what one keeps:
# read over 144 steps of the starter model. Blocks of more than 32 MB go back to the system whole.
LOST_SHARE, LOST_STEPS, LOST_BYTES = 0.7, 40, 1e9
STATE_BYTES = {"adamw": 8, "lamb": 8, "adamw_8bit": 2}  # of the optimizer's state, a parameter

Plan = Sequence[tuple[list[list[int]], bool]]  # steps, and whether an epoch ends with them


@dataclass(frozen=True, slots=True)
class Work:
    """What a plan asks of one process, from ``done`` steps on; tokens and steps of the whole of it."""

    steps: int
    input_tokens: int
    trained_tokens: int
    largest: int  # tokens of a micro-batch
    steps_left: int
    tokens_left: int
    forward_tokens: int  # evaluations, and what an objective scores before the first step
    saves: int


def work_of(
    config: TrainingConfig,
    plan: Plan,
    done: int,
    train_rows: Sequence[TokenizedRow],
    validation_rows: Sequence[TokenizedRow],
    processes: int,
    scores_first: bool,
    sample_tokens: int = 0,
) -> Work:
    """``scores_first``: the objective makes a forward pass over every row before the first step.

    ``sample_tokens`` are read after each evaluation.
    """
    tokens = [row.tokens for row in train_rows]
    trained = [row.supervised for row in train_rows]
    validation = sum(row.tokens for row in validation_rows)
    steps, largest, left, evaluations, saves, all_tokens, all_trained = 0, 0, 0.0, 0, 0, 0, 0
    for steps, (micro_batches, at_edge) in enumerate(plan, 1):
        sizes = [sum(tokens[place] for place in places) for places in micro_batches]
        all_tokens += sum(sizes)
        all_trained += sum(trained[place] for places in micro_batches for place in places)
        largest = max(largest, *sizes)
        if steps > done:
            turns = -(-len(sizes) // processes)  # every rank takes equally many
            left += sum(sizes) * turns / len(sizes)
            evaluations += at_edge or is_due(config.eval_steps, steps)
            saves += at_edge if config.save_steps == 0 else is_due(config.save_steps, steps)
    scored = sum(tokens) + validation if scores_first and not done else 0
    forward = (evaluations * validation + scored) // processes + evaluations * sample_tokens
    return Work(steps, all_tokens, all_trained, largest, steps - done, round(left), forward, saves)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of what learns, and of the files beside it in a version."""

    learning: int
    tokenizer_bytes: int

    def best_bytes(self, config: TrainingConfig) -> int:
        return 4 * self.learning if config.keeps_best else 0

    def state_bytes(self, config: TrainingConfig) -> int:
        return STATE_BYTES[config.optimizer] * self.learning

    def checkpoint_bytes(self, config: TrainingConfig) -> int:
        return 4 * self.learning + self.state_bytes(config) + self.best_bytes(config)

    def disk_bytes(self, config: TrainingConfig, saves: int) -> int:
        """A checkpoint is written before the oldest goes; a version is in the run folder and in the registry."""
        kept = min(saves, config.save_total_limit + 1)
        return kept * self.checkpoint_bytes(config) + 2 * (4 * self.learning + self.tokenizer_bytes)


class Meter:
    """Times passes and updates and watches the memory, from ``start`` to ``stop``."""

    def __init__(self) -> None:
        self._device = torch.device("cpu")
        self._passes: list[tuple[int, float]] = []  # tokens, seconds
        self._kept: list[tuple[int, int]] = []  # tokens, bytes above what rests
        self._updates: list[float] = []
        self.forward_token_seconds: float | None = None
        self.measuring = False
        self.started = 0.0
        self._resting = 0
        self._state_bytes = 0
        self._seen = 0
        self._over = threading.Event()

    def start(self, device: torch.device, state_bytes: int) -> None:
        """``state_bytes``: of the optimizer's state, which is not there in the first passes."""
        self._device, self._state_bytes = device, state_bytes
        self.measuring = True
        self.started = time.perf_counter()
        threading.Thread(target=self._watch, name="memory", daemon=True).start()

    @property
    def passes(self) -> int:
        return len(self._passes)

    @property
    def updates(self) -> int:
        return len(self._updates)

    @contextmanager
    def one_pass(self, tokens: int) -> Iterator[None]:
        """Around the forward and backward pass of a micro-batch."""
        if not self.measuring:
            yield
            return
        before = peak_memory_bytes(self._device)
        self._seen = 0
        with self._timed() as seconds:
            yield
        after = peak_memory_bytes(self._device)
        self._passes.append((tokens, seconds[0]))
        peak = after if after > before else max(self._seen, held_memory_bytes(self._device))
        self._kept.append((tokens, peak - self._resting))

    @contextmanager
    def one_update(self) -> Iterator[None]:
        """Around the optimizer's step. After the first all is there that stays."""
        if not self.measuring:
            yield
            return
        with self._timed() as seconds:
            yield
        self._updates.append(seconds[0])
        if not self._resting:
            _give_back()
            self._resting = held_memory_bytes(self._device)
            before = self._resting - self._state_bytes
            self._kept = [(tokens, peak - before) for tokens, peak in self._kept]

    @contextmanager
    def forward_only(self, tokens: int) -> Iterator[None]:
        with self._timed() as seconds:
            yield
        self.forward_token_seconds = seconds[0] / tokens

    def stop(self) -> None:
        self.measuring = False
        self._over.set()

    @property
    def token_bytes(self) -> float:
        """The most that a pass kept, a token of it; of the largest pass, whose allocations are least in doubt."""
        tokens, kept = max(self._kept, default=(0, 0))
        return max(0, kept) / tokens if tokens else 0.0

    @property
    def resting_bytes(self) -> int:
        return self._resting

    @property
    def token_seconds(self) -> float:
        """Of a pass, by the median: the first warms up, and others share this machine."""
        return statistics.median(seconds / tokens for tokens, seconds in self._passes[1:] or self._passes)

    def forecast(self, config: TrainingConfig, work: Work, sizes: Sizes) -> Forecast:
        forward = self.forward_token_seconds or FORWARD_SHARE * self.token_seconds
        update = statistics.median(self._updates[1:] or self._updates)
        save = SAVE_SECONDS + sizes.checkpoint_bytes(config) / WRITE_BYTES_A_SECOND
        kept = self.token_bytes * work.largest
        lost = _lost(kept, work.steps_left) if self._device.type == "cpu" else 0
        at_once = self._resting + kept + lost + sizes.best_bytes(config)
        return Forecast(
            peak_memory_bytes=max(peak_memory_bytes(self._device), round(at_once)),
            seconds=work.tokens_left * self.token_seconds
            + work.steps_left * update
            + work.forward_tokens * forward
            + work.saves * save,
            steps=work.steps,
            input_tokens=work.input_tokens,
            trained_tokens=work.trained_tokens,
            disk_bytes=sizes.disk_bytes(config, work.saves),
            resting_bytes=self._resting,
            token_bytes=self.token_bytes,
            largest_batch_tokens=work.largest,
            device=self._device.type,
        )

    @contextmanager
    def _timed(self) -> Iterator[list[float]]:
        found: list[float] = []
        self._finish()
        started = time.perf_counter()
        yield found
        self._finish()
        found.append(time.perf_counter() - started)

    def _finish(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self._seen = max(self._seen, held_memory_bytes(self._device))


class RunForecast:
    """Says in a run's first lines what it will take, and at its end how wrong that was.

    ``known`` is what ``rehearse`` found for this run before; without it the run's own first steps are measured.
    """

    def __init__(
        self, config: TrainingConfig, sizes: Sizes, report: Reporter, folder: Path | None, known: Forecast | None
    ) -> None:
        self._config, self.sizes, self._report, self._folder = config, sizes, report, folder
        self._known = known
        self._said: Forecast | None = None
        self._work: Work | None = None

    def begin(self, work: Work, meter: Meter, device: torch.device) -> None:
        """Before the first step."""
        self._work = work
        disk = self.sizes.disk_bytes(self._config, work.saves)
        counts = (
            f"forecast: {work.steps} steps, {work.input_tokens:,} tokens ({work.trained_tokens:,} trained), "
            f"at most {disk / 1e6:.0f} MB on disk"
        )
        if self._known is not None and work.steps_left == work.steps:
            self._report.message(f"{counts}, {self._known.in_words()}")
            self._keep(self._known)
        else:
            meter.start(device, self.sizes.state_bytes(self._config))
            self._report.message(f"{counts}; memory and time follow from the first steps")

    def stepped(self, done: int, meter: Meter) -> None:
        """After each step: once enough was measured, the rest of the forecast is said."""
        if not meter.measuring or self._work is None:
            return
        enough = meter.passes >= PASSES and meter.updates > 1
        late = meter.passes > 1 and time.perf_counter() - meter.started > OWN_SECONDS
        if enough or late or 2 * (self._work.steps - done) <= self._work.steps_left:
            meter.stop()
            found = meter.forecast(self._config, self._work, self.sizes)
            self._report.message(f"forecast: {found.in_words()} in all")
            self._keep(found)

    def compared(self, peak_memory_bytes: int, seconds: float) -> dict[str, float] | None:
        """For metrics.json: what was said, and its ratios to what then happened."""
        if self._said is None:
            return None
        return {
            "peak_memory_bytes": self._said.peak_memory_bytes,
            "seconds": self._said.seconds,
            "disk_bytes": self._said.disk_bytes,
            "memory_ratio": self._said.peak_memory_bytes / peak_memory_bytes,
            "time_ratio": self._said.seconds / seconds,
        }

    def _keep(self, forecast: Forecast) -> None:
        self._said = forecast
        if self._folder is not None:
            with suppress(OSError):  # a full disk ends no run for this
                write_whole(self._folder / "forecast.json", json.dumps(asdict(forecast), indent=2) + "\n")


def _lost(kept: float, steps: int) -> float:
    return min(kept * LOST_SHARE, LOST_BYTES) * (1 - math.exp(-steps / LOST_STEPS))


def is_due(every: int, step: int) -> bool:
    """Tell whether something happens at ``step`` that happens each ``every`` steps; 0: never."""
    return every > 0 and step % every == 0


def _give_back() -> None:
    """What C's allocator keeps of freed memory, so that what is held is what is in use. glibc's alone can."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
