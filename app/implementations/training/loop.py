"""The training loop: plan → pack → forward → backward → step → report → checkpoint → evaluate → best.

One loop serves every objective, adaptation and strategy. Random state is set anew for each micro-step, so that
evaluation and checkpoints cannot disturb training, and a resumed run draws what a whole one would have.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from app.core.entities.datasets import TokenizedRow
from app.core.entities.training_config import TrainingConfig
from app.core.errors import AppError
from app.core.interfaces.components import Reporter, TrainingStopped
from app.implementations.training.batches import PackedBatch, pack, plan_epoch
from app.implementations.training.checkpoints import (
    Position,
    Weights,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from app.implementations.training.optimizer import MasterAdamW, learning_rate
from app.implementations.training.strategies.single import SingleProcess


class TrainingFailed(AppError):
    """Not to be tried again: the same data and config would fail the same way."""

    status = 422
    default_code = "trainer_failed"


@dataclass
class Counters:
    """What a run has counted, kept in its checkpoints. Tokens are real ones: there is no padding."""

    input_tokens: int = 0
    trained_tokens: int = 0
    loss_sum: float = 0.0  # over trained_tokens
    seconds: float = 0.0  # of training steps, evaluation and saving left out
    eval_loss: float | None = None
    best_eval_loss: float | None = None
    best_step: int | None = None
    epochs_without_better: int = 0
    history: list[dict[str, float | int]] = field(default_factory=list)  # one entry an evaluation

    @property
    def tokens_per_second(self) -> float:
        return self.input_tokens / self.seconds if self.seconds else 0.0


@dataclass
class TrainingLoop:
    """``objective`` wraps the adapted model; ``train_rows`` must not be empty."""

    config: TrainingConfig
    objective: nn.Module
    optimizer: MasterAdamW
    strategy: SingleProcess
    device: torch.device
    train_rows: Sequence[TokenizedRow]
    validation_rows: Sequence[TokenizedRow]
    checkpoints: Path
    report: Reporter

    def run(self) -> Counters:
        """Train to the end or from the newest whole checkpoint on. Leaves the weights to publish in the model.

        Raises ``TrainingFailed`` (nan_loss, naming the rows) and ``TrainingStopped``.
        """
        position, best = self._resume()
        step, counters = position.step, Counters(**position.counters)
        plans = [self._plan(epoch) for epoch in range(self.config.num_epochs)]
        total = sum(map(len, plans))
        done_before = 0
        for plan in plans:
            for place, micro_steps in enumerate(plan):
                if done_before + place < step:
                    continue
                if self.report.should_stop():
                    save_checkpoint(self.checkpoints, self.optimizer, Position(step, asdict(counters)), best)
                    raise TrainingStopped
                self._step(step, total, micro_steps, counters)
                step += 1
                at_edge = place + 1 == len(plan)
                if at_edge and self.validation_rows:
                    best = self._evaluate(step, total, counters, best)
                if at_edge if self.config.save_steps == 0 else step % self.config.save_steps == 0:
                    save_checkpoint(self.checkpoints, self.optimizer, Position(step, asdict(counters)), best)
            done_before += len(plan)
            if 0 < self.config.early_stopping_patience <= counters.epochs_without_better:
                self.report.message(
                    f"no better validation loss for {counters.epochs_without_better} epochs: stopping"
                )
                break
        if best is not None:
            self.optimizer.load_masters(best)
        return counters

    def _plan(self, epoch: int) -> list[list[list[int]]]:
        config = self.config
        return plan_epoch(
            len(self.train_rows), config.batch_size, config.gradient_accumulation_steps, config.seed, epoch
        )

    def _resume(self) -> tuple[Position, Weights | None]:
        checkpoint = latest_checkpoint(self.checkpoints)
        if checkpoint is None:
            return Position(0, {}), None
        position, best = load_checkpoint(checkpoint, self.optimizer)
        self.report.message(f"going on from step {position.step}")
        return position, best

    def _step(self, step: int, total: int, micro_steps: list[list[int]], counters: Counters) -> None:
        started = time.perf_counter()
        self.objective.train()
        batches = [pack([self.train_rows[i] for i in indices]) for indices in micro_steps]
        # One mean over all tokens of the step: 1 × 8 rows and 8 × 1 rows give the same gradient.
        supervised = sum(batch.supervised for batch in batches)
        loss_sum = 0.0
        for number, batch in enumerate(batches):
            self._seed(step, number)
            loss = self.objective(batch.to(self.device))
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingFailed(
                    f"the loss became {value} in step {step + 1}, on rows {_row_list([batch])}: "
                    "lower learning_rate, or look at these rows",
                    code="nan_loss",
                )
            loss_sum += value
            self.strategy.backward(loss / supervised, self.optimizer)
        rate = learning_rate(self.config, step, total)
        norm = self.strategy.step(self.optimizer, rate, self.config.max_grad_norm)
        if not math.isfinite(norm):
            raise TrainingFailed(
                f"the gradient became {norm} in step {step + 1}, on rows {_row_list(batches)}: "
                "lower learning_rate, or look at these rows",
                code="nan_loss",
            )
        tokens = sum(batch.tokens for batch in batches)
        counters.input_tokens += tokens
        counters.trained_tokens += supervised
        counters.loss_sum += loss_sum
        counters.seconds += time.perf_counter() - started
        if (step + 1) % self.config.logging_steps == 0 or step + 1 == total:
            self.report.metrics(
                step + 1,
                total,
                {
                    "loss": loss_sum / supervised,
                    "learning_rate": rate,
                    "grad_norm": norm,
                    "tokens_per_second": counters.tokens_per_second,
                    "eta_seconds": (total - step - 1) * counters.seconds / (step + 1),
                },
            )

    def _seed(self, step: int, micro_step: int) -> None:
        seed = (self.config.seed * 1_000_003 + step) * 1_009 + micro_step * 31 + self.strategy.rank
        torch.manual_seed(seed % 2**63)

    def _evaluate(self, step: int, total: int, counters: Counters, best: Weights | None) -> Weights | None:
        """Validation loss; the best masters so far, when early stopping may want them back."""
        loss = counters.eval_loss = evaluate_loss(
            self.objective, self.validation_rows, self.config.batch_size, self.device
        )
        counters.history.append({"step": step, "eval_loss": loss})
        self.report.metrics(step, total, {"eval_loss": loss, "perplexity": perplexity(loss)})
        before = counters.best_eval_loss
        if before is None or loss < before - self.config.early_stopping_threshold:
            counters.best_eval_loss, counters.best_step, counters.epochs_without_better = loss, step, 0
            if self.config.early_stopping_patience:
                return {name: master.detach().clone() for name, master in self.optimizer.masters.items()}
        else:
            counters.epochs_without_better += 1
        return best


def _row_list(batches: Sequence[PackedBatch]) -> str:
    return ", ".join(str(row) for batch in batches for row in batch.rows)


def evaluate_loss(
    objective: nn.Module, rows: Sequence[TokenizedRow], batch_size: int, device: torch.device
) -> float:
    """Mean loss of a supervised token over ``rows``."""
    objective.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            batch = pack(rows[start : start + batch_size])
            total += float(objective(batch.to(device)))
            count += batch.supervised
    return total / count


def perplexity(loss: float) -> float:
    return math.exp(min(loss, 700.0))
