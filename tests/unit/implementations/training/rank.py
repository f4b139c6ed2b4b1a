"""One of the processes of test_strategies.py: ``rank.py STRATEGY ZERO_STAGE RANK PROCESSES FOLDER``.

Leaves ``rank-N.pt``: for each scenario what it heard, its pieces and the weights at the end.
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from app.bootstrap import load_strategy_options
from app.core.entities.trainer import Placement
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import TrainingStopped
from app.implementations.training.collective import local
from app.registries import STRATEGIES
from tests.unit.implementations.training.conftest import Listener, make_scenario

SCENARIOS = {
    "lora": {"dtype": torch.float32},
    "full": {"dtype": torch.float32, "full": True},
    "bf16": {"dtype": torch.bfloat16},
    "fused": {"dtype": torch.float32, "kernels": True},
}
STOP_AT = 2  # of three steps an epoch


class Looking(Listener):
    """Looks after the first step at what this process holds; what an evaluation gathers may stay."""

    model: torch.nn.Module
    pieces: dict[str, tuple[int, int]] | None = None

    def metrics(self, step: int, total_steps: int, figures: Any) -> None:
        super().metrics(step, total_steps, figures)
        if self.pieces is None:
            self.pieces = {key: piece_of(parameter) for key, parameter in self.model.named_parameters()}


def main(strategy_name: str, zero_stage: int, rank: int, processes: int, folder: Path) -> None:
    torch.set_num_threads(1)
    strategy = STRATEGIES.create(strategy_name)
    config = scenario_config(strategy_name, zero_stage, processes)
    placement = Placement(rank, processes, rank, f"file://{folder / 'rendezvous'}")
    strategy.join(config, placement, torch.device("cpu"), load_strategy_options(config))
    found = {}
    for name, options in SCENARIOS.items():
        whole = Looking()
        loop = make_scenario(config, strategy, folder / name / "whole", whole, **options)
        whole.model = loop.objective.model
        counters = loop.run()
        weights = {key: value.clone() for key, value in loop.optimizer.whole().items()}
        with suppress(TrainingStopped):
            make_scenario(config, strategy, folder / name / "parts", Listener(STOP_AT), **options).run()
        resumed = Listener()
        again = make_scenario(config, strategy, folder / name / "parts", resumed, **options)
        again.run()
        found[name] = {
            "steps": whole.steps,
            "evaluations": whole.evaluations,
            "tokens": counters.input_tokens,
            "weights": weights,
            "pieces": whole.pieces,
            "resumed_steps": resumed.steps,
            "resumed_weights": {key: value.clone() for key, value in again.optimizer.whole().items()},
            "agreed": strategy.agree(rank == 1),
        }
    strategy.leave()
    torch.save(found, folder / f"rank-{rank}.pt")


def scenario_config(strategy: str, zero_stage: int, processes: int) -> TrainingConfig:
    return TrainingConfig(
        strategy=strategy,
        zero_stage=zero_stage,
        processes=processes,
        batch_size=2,
        gradient_accumulation_steps=4 // processes,
        learning_rate=1e-2,
        warmup_steps=2,
        num_epochs=2,
        weight_decay=0.1,
        max_grad_norm=0.5,
        load_best_model_at_end=True,
    )


def piece_of(parameter: torch.nn.Parameter) -> tuple[int, int]:
    """(entries that this process holds, entries in all)."""
    if hasattr(parameter, "ds_tensor"):
        return parameter.ds_tensor.numel() + parameter.numel(), parameter.ds_numel
    return local(parameter).numel(), parameter.numel()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
