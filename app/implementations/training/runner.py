"""One training run in a trainer process: model, data, loop, and what it leaves in the run folder."""

import json
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import transformers
from torch import nn

from app.core.entities.datasets import TokenizedRow
from app.core.entities.training_config import TrainingConfig
from app.core.factories import ComponentFactory
from app.core.interfaces.components import Reporter, TrainerJob, TrainingRunner
from app.core.services.encoding import encode
from app.implementations.data.store import read_split
from app.implementations.data.tokenization import FolderChatTokenizer
from app.implementations.models.devices import peak_memory_bytes, pick_device, pick_precision
from app.implementations.training import packed_attention
from app.implementations.training.adaptations.lora import count_parameters, trainable
from app.implementations.training.batches import pack, plan_epoch
from app.implementations.training.loop import Counters, TrainingFailed, TrainingLoop
from app.implementations.training.memory import memory_by_part, saved_for_backward
from app.implementations.training.method import Adaptation, Objective, Strategy
from app.implementations.training.optimizer import MasterOptimizer
from app.utils.files import write_whole
from app.utils.folders import fresh_neighbour, move_into_place, remove_folder, seal

# What a version needs beside its weights to render a conversation as in training.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)


class TorchRunner(TrainingRunner):
    """Method = objective × adaptation × strategy, each built by its name in the config."""

    def __init__(
        self,
        objectives: ComponentFactory[Objective],
        adaptations: ComponentFactory[Adaptation],
        strategies: ComponentFactory[Strategy],
    ) -> None:
        self.objectives, self.adaptations, self.strategies = objectives, adaptations, strategies

    def run(self, job: TrainerJob, report: Reporter) -> Mapping[str, Any]:
        """See the interface."""
        config = job.config
        torch.set_num_threads(job.threads)
        device = pick_device(config.device)
        precision = pick_precision(config.precision, device)

        tokenizer = FolderChatTokenizer(job.base_model_folder)
        train = _tokenize(job, tokenizer, "train", config.train_samples)
        validation = _tokenize(job, tokenizer, "validation", None)
        if not train:
            raise TrainingFailed("no row has a token to train on", code="invalid_data")

        report.message(f"loading {config.base_model} on {device.type} in {str(precision).removeprefix('torch.')}")
        torch.manual_seed(config.seed)
        adaptation = self.adaptations.create(config.adaptation, config=config)
        model = adaptation.load(job.base_model_folder, precision, attn_implementation=packed_attention.NAME)
        adapted = adaptation.prepare(model, config.base_model, job.start_from)
        if config.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        strategy = self.strategies.create(config.strategy)
        objective = self.objectives.create(config.objective, model=adapted, config=config)
        wrapped = strategy.wrap(objective, device)
        learning, everything = count_parameters(adapted)
        report.message(
            f"training {learning:,} of {everything:,} parameters on {len(train)} rows, "
            f"validating on {len(validation)}"
        )

        learns = trainable(adapted)
        optimizer = MasterOptimizer(learns, config.weight_decay, adaptation.rate_factors(learns))
        started = time.perf_counter()
        counters = TrainingLoop(
            config,
            objective,
            wrapped,
            optimizer,
            strategy,
            device,
            train,
            validation,
            job.run_folder / "checkpoints" / job.job_id,  # two jobs may name one output_dir
            report,
        ).run()
        runtime = time.perf_counter() - started
        memory = _memory_by_part(config, adapted, wrapped, optimizer, strategy, train, device)

        for name, parameter in optimizer.parameters.items():
            parameter.data = optimizer.masters[name].detach()  # published in float32, as they were trained
        metrics = _metrics(counters, runtime, device) | {
            "memory_by_part": memory,
            "trainable_parameters": learning,
            "device": device.type,
            "precision": str(precision).removeprefix("torch."),
            "threads": job.threads,
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "machine": platform.machine(),
        }
        _leave_artifacts(job, adaptation, adapted)
        write_whole(job.run_folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        return {"metrics": metrics, "template_hash": tokenizer.template_hash}


def _tokenize(
    job: TrainerJob, tokenizer: FolderChatTokenizer, split: str, limit: int | None
) -> Sequence[TokenizedRow]:
    conversations = read_split(job.dataset_folder, split)[:limit]
    rows = [row for conversation in conversations for row in encode(conversation, tokenizer, job.config)]
    return [row for row in rows if row.supervised]


def _metrics(counters: Counters, runtime: float, device: torch.device) -> dict[str, Any]:
    """Losses are the objective's means; times in seconds; memory in bytes."""
    last = {name: value for name, value in (counters.history or [{}])[-1].items() if name != "step"}
    return {
        "train_loss": counters.loss_sum / max(1, counters.weight),
        "eval_loss": None,
        "perplexity": None,
        **last,
        "best_eval_loss": counters.best_eval_loss,
        "best_step": counters.best_step,
        "evaluations": counters.history,
        "train_runtime": runtime,
        "input_tokens": counters.input_tokens,
        "trained_tokens": counters.trained_tokens,
        "tokens_per_second": counters.tokens_per_second,
        "peak_memory_bytes": peak_memory_bytes(device),
    }


def _memory_by_part(
    config: TrainingConfig,
    adapted: nn.Module,
    wrapped: nn.Module,
    optimizer: MasterOptimizer,
    strategy: Strategy,
    rows: Sequence[TokenizedRow],
    device: torch.device,
) -> dict[str, int]:
    """In bytes; the activations are those of the first epoch's micro-batch with the most tokens."""
    plan = plan_epoch(
        len(rows), config.batch_size, config.gradient_accumulation_steps, config.seed, 0, strategy.processes
    )
    packs = ([rows[place] for place in places] for micro_batches in plan for places in micro_batches)
    largest = max(packs, key=lambda batch: sum(row.tokens for row in batch))
    activations = saved_for_backward(wrapped, pack(largest).to(device))
    return {**memory_by_part(adapted, optimizer), "activations": activations}


def _leave_artifacts(job: TrainerJob, adaptation: Any, adapted: Any) -> None:
    """``artifacts/``: adapter, tokenizer and template, whole or not at all."""
    target = job.run_folder / "artifacts"
    building = fresh_neighbour(target)
    adaptation.save(adapted, building)
    for name in TOKENIZER_FILES:
        if (job.base_model_folder / name).is_file():
            shutil.copyfile(job.base_model_folder / name, building / name)
    seal(building, {"base_model": job.config.base_model, "job_id": job.job_id})
    remove_folder(target)
    move_into_place(building, target)
