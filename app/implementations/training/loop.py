"""The training loop: plan → pack → forward → backward → step → report → checkpoint → evaluate → best.

One loop serves every objective, adaptation and strategy. Random state is set anew for each micro-step, so that
evaluation and checkpoints cannot disturb training, and a resumed run draws what a whole one would have.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from app.core.entities.datasets import TokenizedRow
from app.core.entities.training_config import TrainingConfig
from app.core.errors import AppError, Conflict, DiskFull
from app.core.interfaces.components import Reporter, TrainingStopped
from app.core.services.jobs.resuming import latest_checkpoint
from app.implementations.training.batches import pack, plan_epoch, share_of
from app.implementations.training.checkpoints import (
    Position,
    Weights,
    pins_of,
    read_checkpoint,
    save_checkpoint,
)
from app.implementations.training.collective import first
from app.implementations.training.forecast import Meter, Plan, RunForecast, Work, is_due, work_of
from app.implementations.training.method import Objective, Strategy
from app.implementations.training.optimizer import Masters, learning_rate
from app.implementations.training.pins import compare, pins
from app.utils.folders import locked


class TrainingFailed(AppError):
    """Not to be tried again: the same data and config would fail the same way."""

    status = 422
    default_code = "trainer_failed"


@dataclass
class Counters:
    """What a run has counted, kept in its checkpoints. Tokens are real ones: there is no padding."""

    input_tokens: int = 0
    trained_tokens: int = 0
    loss_sum: float = 0.0
    weight: int = 0  # of loss_sum: tokens, pairs or rows, by the objective
    seconds: float = 0.0  # of training steps, evaluation and saving left out
    eval_loss: float | None = None
    best_eval_loss: float | None = None
    best_step: int | None = None
    evaluations_without_better: int = 0
    history: list[dict[str, float | int]] = field(default_factory=list)  # one entry an evaluation

    @property
    def tokens_per_second(self) -> float:
        return self.input_tokens / self.seconds if self.seconds else 0.0


@dataclass
class TrainingLoop:
    """``wrapped`` is the strategy's wrapping of ``objective``; ``train_rows`` must not be empty.

    ``machine`` is what the numbers depend on beside config and rows: a resume that differs in it says so.
    """

    config: TrainingConfig
    objective: Objective
    wrapped: nn.Module
    optimizer: Masters
    strategy: Strategy
    device: torch.device
    train_rows: Sequence[TokenizedRow]
    validation_rows: Sequence[TokenizedRow]
    checkpoints: Path
    report: Reporter
    machine: Mapping[str, str | int] = field(default_factory=dict)
    sample: Callable[[int], None] | None = None  # given the step, when an evaluation is due
    sample_tokens: int = 0  # that ``sample`` reads, in forward passes without a cache
    forecast: RunForecast | None = None
    meter: Meter = field(default_factory=Meter)

    def run(self) -> Counters:
        """Train to the end or from the newest whole checkpoint on. Leaves the weights to publish in the model.

        Raises ``TrainingFailed`` (nan_loss, naming the rows), ``TrainingStopped``, ``Invalid`` where the
        checkpoint is another run's, and ``Conflict`` where another process is at work on these checkpoints.
        """
        with ExitStack() as alone:
            if self.strategy.rank == 0:
                try:
                    alone.enter_context(locked(self.checkpoints, wait=False))
                except BlockingIOError:
                    raise Conflict("another trainer is at work in this run folder", code="run_is_live") from None
            return self._run()

    def _run(self) -> Counters:
        processes = self.strategy.processes
        self._pins = pins(self.config, self.train_rows, self.validation_rows, processes, self.machine)
        checkpoint = latest_checkpoint(self.checkpoints) if self.strategy.rank == 0 else None
        differences = [] if checkpoint is None else compare(pins_of(checkpoint), self._pins)
        rows = [*self.train_rows, *self.validation_rows]
        self.objective.prepare(self.wrapped, self.strategy, rows, self.device, self.checkpoints, self.report)
        position, self._best = self._resume(checkpoint, differences)
        step, counters = position.step, Counters(**position.counters)
        steps = self.plan()
        if self.forecast:
            self.forecast.begin(self.work(steps, step), self.meter, self.device)
        for micro_batches, at_edge in steps[step:]:
            if self._gives_up(counters):
                break
            if self.strategy.agree(self.report.should_stop()):
                self._save(step, counters)
                raise TrainingStopped
            self._step(step, len(steps), micro_batches, counters)
            step += 1
            if self.forecast:
                self.forecast.stepped(step, self.meter)
            if at_edge or is_due(self.config.eval_steps, step):
                if self.validation_rows:
                    self._evaluate(step, len(steps), counters)
                if self.sample:
                    self.sample(step)
            if at_edge if self.config.save_steps == 0 else is_due(self.config.save_steps, step):
                self._save(step, counters)
        if self._best is not None:
            self.optimizer.load_masters(self._best)
        return counters

    def plan(self) -> Plan:
        """Every step of the run."""
        plans = [self._plan(epoch) for epoch in range(self.config.num_epochs)]
        return [(micro_batches, micro_batches is plan[-1]) for plan in plans for micro_batches in plan]

    def work(self, plan: Plan, done: int) -> Work:
        return work_of(
            self.config,
            plan,
            done,
            self.train_rows,
            self.validation_rows,
            self.strategy.processes,
            self.objective.scores_first,
            self.sample_tokens,
        )

    def rehearse(self, places: Sequence[int], prepare: Sequence[Sequence[int]] = ()) -> None:
        """A step on one micro-batch, the same in each process; the first time with all that will be needed to
        ``prepare``. The run that this stands for is not to be run here."""
        if prepare:
            rows = {place: self.train_rows[place] for group in prepare for place in group}
            self.objective.prepare(
                self.wrapped, self.strategy, list(rows.values()), self.device, self.checkpoints, self.report
            )
        self._step(0, 1, [list(places)] * self.strategy.processes, Counters())

    def score(self, places: Sequence[int]) -> None:
        """A forward pass as evaluations make it."""
        rows = [self.train_rows[place] for place in places]
        evaluate(self.objective, self.wrapped, self.strategy, rows, len(rows), self.device)

    def _plan(self, epoch: int) -> list[list[list[int]]]:
        config = self.config
        return plan_epoch(
            len(self.train_rows),
            config.batch_size,
            config.gradient_accumulation_steps,
            config.seed,
            epoch,
            self.strategy.processes,
        )

    def _resume(self, checkpoint: Path | None, differences: Sequence[str]) -> tuple[Position, Weights | None]:
        """Rank 0 reads, where there is a checkpoint; the others are given what they hold of it."""
        found = None if checkpoint is None else read_checkpoint(checkpoint)
        position, has_best = first((found.position, found.best is not None) if found else (None, False))
        if position is None:
            return Position(0, {}), None
        self.optimizer.load_masters(found.masters if found else {})
        self.optimizer.load_state_dict(found.state if found else {})
        self.report.message(f"going on from step {position.step}")
        if differences:
            named = "; ".join(differences)
            self.report.message(f"not to the bit what a run left alone would have given: {named}", "warn")
        return position, (found.best if found else {}) if has_best else None

    def _save(self, step: int, counters: Counters) -> None:
        """Rank 0 writes what all of them gather."""
        position, keep = Position(step, asdict(counters)), self.config.save_total_limit
        masters, state = self.optimizer.whole(), self.optimizer.state_dict()
        if self.strategy.rank != 0:
            return
        try:
            save_checkpoint(self.checkpoints, masters, state, position, self._best, self._pins, keep)
        except DiskFull as error:
            self.report.message(f"step {step}: {error.message}; the run goes on and tries at the next", "warn")

    def _step(self, step: int, total: int, micro_batches: list[list[int]], counters: Counters) -> None:
        started = time.perf_counter()
        self.wrapped.train()
        rows = [self.train_rows[place] for micro_batch in micro_batches for place in micro_batch]
        # One mean over all of the step: 1 × 8 rows and 8 × 1 rows give the same gradient, on one process or many.
        weight = sum(map(self.objective.weight, rows))
        sums = self._forward_backward(step, micro_batches, weight)
        rate = learning_rate(self.config, step, total)
        loss = float(sums["loss"])
        if not math.isfinite(loss):
            raise self._not_a_number(step, f"the loss became {loss}", self._bad_rows(rows) or rows)
        with self.meter.one_update():
            norm = self.strategy.step(self.optimizer, rate, self.config.max_grad_norm)
        if not math.isfinite(norm):
            raise self._not_a_number(step, f"the gradient became {norm}", rows)
        counters.input_tokens += sum(row.tokens for row in rows)
        counters.trained_tokens += sum(row.supervised for row in rows)
        counters.loss_sum += loss
        counters.weight += weight
        counters.seconds += time.perf_counter() - started
        if is_due(self.config.logging_steps, step + 1) or step + 1 == total:
            self.report.metrics(
                step + 1,
                total,
                {
                    **self.objective.figures(sums, weight),
                    "learning_rate": rate,
                    "grad_norm": norm,
                    "tokens_per_second": counters.tokens_per_second,
                    "eta_seconds": (total - step - 1) * counters.seconds / (step + 1),
                },
            )

    def _forward_backward(self, step: int, micro_batches: list[list[int]], weight: int) -> dict[str, torch.Tensor]:
        """The step's sums over all processes."""
        sums: dict[str, torch.Tensor] = {}
        share = share_of(self.strategy.rank, self.strategy.processes, micro_batches)
        for number, (places, counts) in enumerate(share):
            batch = pack([self.train_rows[place] for place in places])
            self._seed(step, number)
            with self.meter.one_pass(batch.tokens), self.strategy.accumulating(last=number + 1 == len(share)):
                found = self.wrapped(batch.to(self.device))
                loss = found["loss"] if counts else found["loss"] * 0.0
                self.strategy.backward(loss / weight, self.optimizer)
            if counts:
                _add(sums, found)
        return self.strategy.total(sums or {name: value.detach() * 0 for name, value in found.items()})

    def _bad_rows(self, rows: Sequence[TokenizedRow]) -> list[TokenizedRow]:
        """Those whose own loss is not finite. Every process looks at all of them: a forward pass may want all."""
        self.wrapped.eval()
        with torch.no_grad():
            losses = [float(self.wrapped(pack([row]).to(self.device))["loss"]) for row in rows]
        return [row for row, loss in zip(rows, losses, strict=True) if not math.isfinite(loss)]

    def _not_a_number(self, step: int, what: str, rows: Sequence[TokenizedRow]) -> TrainingFailed:
        named = f"row{'s' if len(rows) > 1 else ''} {', '.join(str(row.row) for row in rows)}"
        return TrainingFailed(
            f"{what} in step {step + 1}, on {named}: lower learning_rate, or look there", code="nan_loss"
        )

    def _seed(self, step: int, micro_step: int) -> None:
        seed = (self.config.seed * 1_000_003 + step) * 1_009 + micro_step * 31 + self.strategy.rank
        torch.manual_seed(seed % 2**63)

    def _evaluate(self, step: int, total: int, counters: Counters) -> None:
        """Validation figures; keeps the best masters so far where they may be wanted back."""
        figures = evaluate(
            self.objective, self.wrapped, self.strategy, self.validation_rows, self.config.batch_size, self.device
        )
        loss = counters.eval_loss = figures["eval_loss"]
        counters.history.append({"step": step, **figures})
        self.report.metrics(step, total, figures)
        before = counters.best_eval_loss
        if before is None or loss < before - self.config.early_stopping_threshold:
            counters.best_eval_loss, counters.best_step, counters.evaluations_without_better = loss, step, 0
            if self.config.keeps_best:
                self._best = {name: master.clone() for name, master in self.optimizer.whole().items()}
        else:
            counters.evaluations_without_better += 1

    def _gives_up(self, counters: Counters) -> bool:
        count = counters.evaluations_without_better
        gives_up = 0 < self.config.early_stopping_patience <= count
        if gives_up:
            self.report.message(f"no better validation loss in {count} evaluations: stopping")
        return gives_up


def evaluate(
    objective: Objective,
    wrapped: nn.Module,
    strategy: Strategy,
    rows: Sequence[TokenizedRow],
    batch_size: int,
    device: torch.device,
) -> dict[str, float]:
    """``objective``'s figures over ``rows`` as ``eval_…``, and ``perplexity`` where it is one of tokens."""
    wrapped.eval()
    batches = [list(range(start, min(start + batch_size, len(rows)))) for start in range(0, len(rows), batch_size)]
    sums: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for places, counts in share_of(strategy.rank, strategy.processes, batches):
            found = wrapped(pack([rows[place] for place in places]).to(device))
            _add(sums, found if counts else {name: value * 0 for name, value in found.items()})
    figures = objective.figures(strategy.total(sums), sum(map(objective.weight, rows)))
    named = {f"eval_{name}": value for name, value in figures.items()}
    return named | ({"perplexity": perplexity(figures["loss"])} if objective.counts_tokens else {})


def perplexity(loss: float) -> float:
    return math.exp(min(loss, 700.0))


def _add(sums: dict[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> None:
    for name, value in found.items():
        sums[name] = sums[name] + value.detach() if name in sums else value.detach()
