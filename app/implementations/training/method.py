"""Method = objective × adaptation × strategy: what each of the three promises the loop.

An objective's or an adaptation's file is imported by every process that reads a training config, for what it
declares (app/core/interfaces/parts.py). So this module and those files import torch for the type checker only, and
inside the methods that compute.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.core.entities.datasets import TokenizedRow
from app.core.entities.trainer import Placement
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import ModelLoader, Reporter
from app.core.interfaces.parts import AdaptationPart, ObjectivePart

if TYPE_CHECKING:
    import torch
    from torch import nn

    from app.implementations.training.batches import PackedBatch
    from app.implementations.training.optimizer import Masters


class Objective(ObjectivePart):
    """Batch → sums. ``self.model`` is the adapted model; the strategy wraps an ``ObjectiveModule`` of this."""

    generates = False  # whether ``model`` writes text, a token after another
    counts_tokens = False  # whether the loss is a mean over tokens, so that its exponential is a perplexity
    scores_first = False  # whether ``prepare`` makes a forward pass over every row

    def __init__(self, model: Any, config: TrainingConfig) -> None:
        self.model, self.config = model, config

    def prepare(
        self,
        wrapped: nn.Module,
        strategy: Strategy,
        rows: Sequence[TokenizedRow],
        device: torch.device,
        folder: Path,
        report: Reporter,
    ) -> None:
        """Called once before the first step, with the model as a run that is not resumed begins.

        ``rows`` are all that will be seen, validation's too; what must outlive the process is kept in ``folder``,
        the job's checkpoints'. Raises ``TrainingStopped``. By default there is nothing to prepare.
        """

    @abstractmethod
    def __call__(self, batch: PackedBatch) -> dict[str, torch.Tensor]:
        """``loss``, summed over what ``weight`` counts, and any other sums that ``figures`` reads (detached)."""

    @staticmethod
    @abstractmethod
    def weight(row: TokenizedRow) -> int:
        """What a row counts for: the loss of a step is the sum over its rows by the sum of their weights."""

    def figures(self, sums: Mapping[str, torch.Tensor], weight: int) -> dict[str, float]:
        """What is reported of a step or an evaluation, from the sums over all of its batches."""
        return {"loss": float(sums["loss"]) / weight}


class Adaptation(AdaptationPart):
    """Which weights learn, how the model is loaded for that, and what a version holds of it."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config

    def load(self, loader: ModelLoader, folder: Path, precision: torch.dtype, **options: Any) -> Any:
        """Load the base model; ``options`` are transformers' own."""
        return loader.load(folder, precision, **options)

    @abstractmethod
    def prepare(self, model: Any, base_model: str, start_from: Path | None = None) -> nn.Module:
        """The model in which what learns requires a gradient. Called after seeding, so that equal seeds give equal
        weights; ``start_from`` holds a version's artifacts to begin with instead. Raises ``Invalid``."""

    def rate_factors(self, names: Iterable[str]) -> Mapping[str, float]:
        """What the config's learning rate is multiplied by, for those parameters that have one of their own."""
        return {}

    @abstractmethod
    def save(self, model: Any, folder: Path) -> None:
        """What a version needs of the weights, with the float32 masters already in the model."""


class Strategy(ABC):
    """How a step's work is spread over processes. ``rank`` 0 alone reports and saves."""

    rank = 0
    processes = 1
    keeps_whole = True  # whether every process holds all of each parameter

    def join(
        self, config: TrainingConfig, placement: Placement, device: torch.device, options: Mapping[str, Any]
    ) -> None:
        """Meet the other processes, if there are any. ``options`` are of the strategy's file under config/.

        Raises ``Invalid``.
        """
        del config, placement, device, options

    def leave(self) -> None:
        """The last word between the processes."""
        return

    @abstractmethod
    def wrap(self, objective: Objective, device: torch.device) -> nn.Module:
        """What the loop calls in place of the objective."""

    def optimizer(
        self,
        parameters: Mapping[str, nn.Parameter],
        config: TrainingConfig,
        rate_factors: Mapping[str, float] | None = None,
    ) -> Masters:
        """Of what learns, after ``wrap``: what ``backward`` and ``step`` are given."""
        from app.implementations.training.optimizer import MasterOptimizer

        return MasterOptimizer(parameters, config.weight_decay, rate_factors, config.optimizer)

    @abstractmethod
    def accumulating(self, last: bool) -> AbstractContextManager[None]:
        """Around each forward and backward of a step; gradients meet in the ``last`` one."""

    @abstractmethod
    def backward(self, loss: torch.Tensor, optimizer: Any) -> None: ...

    @abstractmethod
    def step(self, optimizer: Any, learning_rate: float, max_grad_norm: float) -> float:
        """Clip and update; the answer is the gradient's norm before clipping."""

    @abstractmethod
    def total(self, sums: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Each summed over the processes."""

    @abstractmethod
    def agree(self, flag: bool) -> bool:
        """Whether any process says so."""
