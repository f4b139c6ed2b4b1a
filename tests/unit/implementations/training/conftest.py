"""A tiny Llama with random weights, and rows to train it on."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from app.core.entities.datasets import IGNORED, TokenizedRow
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import Reporter
from app.implementations.training import packed_attention
from app.implementations.training.adaptations.lora import LoraAdaptation, trainable
from app.implementations.training.kernels.install import install_kernels
from app.implementations.training.loop import TrainingLoop
from app.implementations.training.method import Strategy
from app.implementations.training.optimizer import MasterOptimizer
from app.implementations.training.strategies.single import SingleProcess
from app.registries import OBJECTIVES
from tests.small_disk import FileSizeLimit, SmallDisk, SmallTmpfs

VOCABULARY = 64


class Listener(Reporter):
    """Keeps what it hears; asks to stop before step ``stop_at``."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.messages: list[str] = []
        self.steps: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []
        self.stop_at = stop_at

    def message(self, text: str, level: str = "info") -> None:
        self.messages.append(text)

    def metrics(self, step: int, total_steps: int, figures: Any) -> None:
        kept = self.evaluations if "eval_loss" in figures else self.steps
        kept.append({"step": step, "total_steps": total_steps, **figures})

    def should_stop(self) -> bool:
        done = self.steps[-1]["step"] if self.steps else 0
        return self.stop_at is not None and done >= self.stop_at


def tiny_model(attention: str = packed_attention.NAME, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
        tie_word_embeddings=True,
        attn_implementation=attention,
    )
    return LlamaForCausalLM(config).to(dtype).requires_grad_(False)


def rows(count: int, seed: int = 1) -> list[TokenizedRow]:
    """Rows of 4 to 12 tokens; the second half of each is supervised."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for row in range(1, count + 1):
        length = int(torch.randint(4, 13, (1,), generator=generator))
        ids = torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()
        labels = [IGNORED] * (length // 2) + ids[length // 2 :]
        made.append(TokenizedRow(row, ids, labels))
    return made


def pairs(count: int, seed: int = 1) -> list[TokenizedRow]:
    """A prompt of 2 to 4 tokens and two answers of 2 to 8 each."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(least: int, most: int) -> list[int]:
        length = int(torch.randint(least, most + 1, (1,), generator=generator))
        return torch.randint(0, VOCABULARY, (length,), generator=generator).tolist()

    made = []
    for row in range(1, count + 1):
        prompt, chosen, rejected = tokens(2, 4), tokens(2, 8), tokens(2, 8)
        unsupervised = [IGNORED] * len(prompt)
        other = TokenizedRow(row, prompt + rejected, unsupervised + rejected)
        made.append(TokenizedRow(row, prompt + chosen, unsupervised + chosen, rejected=other))
    return made


def all_supervised(count: int, seed: int = 1) -> list[TokenizedRow]:
    return [TokenizedRow(row.row, row.input_ids, row.input_ids) for row in rows(count, seed)]


ROWS = {"sft": rows, "dpo": pairs, "pretrain": all_supervised}


def make_scenario(
    config: TrainingConfig,
    strategy: Strategy,
    folder: Path,
    listener: Listener,
    dtype: torch.dtype = torch.float32,
    full: bool = False,
    kernels: bool = False,
) -> TrainingLoop:
    """As the runner puts one together, on the tiny model and 22 rows: three steps an epoch.

    ``strategy`` has joined.
    """
    torch.manual_seed(config.seed)
    model: Any = tiny_model(dtype=dtype)
    if full:
        model.requires_grad_(True)
    else:
        smaller = config.with_changes(lora={**config.lora.model_dump(), "r": 3})
        model = LoraAdaptation(smaller).prepare(model, "tiny")
    if kernels:
        names = config.kernel_names if strategy.keeps_whole else config.kernel_names - {"lora"}
        assert install_kernels(model, names)
    objective = OBJECTIVES.create(config.objective, model=model, config=config)
    device = torch.device("cpu")
    wrapped = strategy.wrap(objective, device)
    optimizer = strategy.optimizer(trainable(model), config)
    held_out = [replace(row, row=row.row + 1000) for row in rows(5, seed=2)]
    return TrainingLoop(
        config, objective, wrapped, optimizer, strategy, device, rows(22), held_out, folder, listener
    )


@pytest.fixture
def make_loop(tmp_path: Path) -> Callable[..., TrainingLoop]:
    def make_one(
        listener: Listener,
        folder: str = "checkpoints",
        train: int | list[TokenizedRow] = 10,
        validation: int = 4,
        dtype: torch.dtype = torch.float32,
        **config: Any,
    ) -> TrainingLoop:
        settings = TrainingConfig(**{"learning_rate": 1e-2, "warmup_steps": 2, "batch_size": 4, **config})
        torch.manual_seed(settings.seed)
        model = LoraAdaptation(settings.with_changes(lora={**settings.lora.model_dump(), "r": 4})).prepare(
            tiny_model(dtype=dtype), "tiny"
        )
        strategy = SingleProcess()
        device = torch.device("cpu")
        objective = OBJECTIVES.create(settings.objective, model=model, config=settings)
        make = ROWS[settings.objective]
        # As in a file, no row of one split has the number of another's.
        held_out = [replace(row, row=row.row + 1000) for row in make(validation, seed=2)]
        return TrainingLoop(
            settings,
            objective,
            strategy.wrap(objective, device),
            MasterOptimizer(trainable(model), settings.weight_decay, optimizer=settings.optimizer),
            strategy,
            device,
            make(train) if isinstance(train, int) else train,
            held_out,
            tmp_path / folder,
            listener,
        )

    return make_one


@pytest.fixture(params=[SmallTmpfs, FileSizeLimit])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    with request.param(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def listener() -> Callable[..., Listener]:
    return Listener


@pytest.fixture
def make_rows() -> Callable[..., list[TokenizedRow]]:
    return rows


@pytest.fixture
def make_pairs() -> Callable[..., list[TokenizedRow]]:
    return pairs


@pytest.fixture
def make_model() -> Callable[..., LlamaForCausalLM]:
    return tiny_model
