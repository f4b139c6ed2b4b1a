"""One training run in a trainer process: model, data, loop, and what it leaves in the run folder."""

import json
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from app.core.entities.datasets import TokenizedRow
from app.core.entities.training_config import TrainingConfig
from app.core.factories import ComponentFactory
from app.core.interfaces.components import ChatTokenizer, Reporter, Tracker, TrainerJob, TrainingRunner
from app.core.services.encoding import encode, labels_of
from app.core.services.tracking import chosen_trackers
from app.implementations.data.encoder_tokenizer import load_tokenizer
from app.implementations.data.store import read_split
from app.implementations.models.devices import free_memory_bytes, peak_memory_bytes, pick_device, pick_precision
from app.implementations.models.host_memory import available_bytes
from app.implementations.training import packed_attention
from app.implementations.training.adaptations.lora import count_parameters, trainable
from app.implementations.training.batches import pack, plan_epoch
from app.implementations.training.checkpoints import needs_room
from app.implementations.training.forecast import RunForecast, Sizes
from app.implementations.training.kernels.install import install_kernels
from app.implementations.training.loop import Counters, TrainingFailed, TrainingLoop
from app.implementations.training.memory import memory_by_part, saved_for_backward
from app.implementations.training.method import Adaptation, Objective, Strategy
from app.implementations.training.optimizer import MasterOptimizer
from app.implementations.training.pins import machine_pins
from app.implementations.training.rehearsal import rehearse
from app.implementations.training.samples import Sampler, choose_prompts
from app.implementations.training.watch import Watch
from app.utils.files import write_whole
from app.utils.folders import building, seal

# What a version needs beside its weights to render a conversation as in training.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)


class TorchRunner(TrainingRunner):
    """Method = objective × adaptation × strategy, each built by its name in the config.

    With ``only_forecast`` it takes a few steps, says what the run would take, and leaves nothing.
    """

    def __init__(
        self,
        objectives: ComponentFactory[Objective],
        adaptations: ComponentFactory[Adaptation],
        strategies: ComponentFactory[Strategy],
        trackers: ComponentFactory[Tracker],
        strategy_options: Callable[[TrainingConfig], Mapping[str, Any]],
        only_forecast: bool = False,
    ) -> None:
        self.objectives, self.adaptations, self.strategies = objectives, adaptations, strategies
        self.trackers, self.strategy_options = trackers, strategy_options
        self.only_forecast = only_forecast

    def run(self, job: TrainerJob, report: Reporter) -> Mapping[str, Any]:
        """See the interface. Leaves ``loss_curve.png`` and ``samples.jsonl`` too."""
        if job.placement.rank != 0 or self.only_forecast:
            return self._run(job, report, None)
        trackers = {name: self.trackers.create(name) for name in chosen_trackers(job.config)}
        with Watch(report, job, trackers, pick_device(job.config.device)) as watch:
            return self._run(job, watch, watch)

    def _run(self, job: TrainerJob, report: Reporter, watch: Watch | None) -> Mapping[str, Any]:
        config = job.config
        torch.set_num_threads(job.threads)
        device = pick_device(config.device)
        precision = pick_precision(config.precision, device)
        free = free_memory_bytes(device)
        available = available_bytes() // config.processes if free is None else free

        tokenizer = load_tokenizer(job.base_model_folder)
        classifies = config.objective == "classification"
        labels = labels_of(read_split(job.dataset_folder, "train")) if classifies else []
        train = _tokenize(job, tokenizer, "train", config.train_samples, labels)
        validation = _tokenize(job, tokenizer, "validation", None, labels)
        if not train:
            raise TrainingFailed("no row has a token to train on", code="invalid_data")

        strategy = self.strategies.create(config.strategy)
        strategy.join(config, job.placement, device, self.strategy_options(config))
        report.message(f"loading {config.base_model} on {device.type} in {str(precision).removeprefix('torch.')}")
        torch.manual_seed(config.seed)
        adaptation = self.adaptations.create(config.adaptation, config=config)
        attention = {"attn_implementation": packed_attention.NAME} if tokenizer.generates else {}
        model = adaptation.load(job.base_model_folder, precision, labels=labels, **attention)
        adapted = adaptation.prepare(model, config.base_model, job.start_from)
        if config.gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        if strategy.keeps_whole:
            kernels = install_kernels(adapted.to(device), config.kernel_names)
        else:  # the strategy moves it piece by piece; fused groups would hold whole weights beside the pieces
            kernels = install_kernels(adapted, config.kernel_names - {"lora"})
        if kernels:
            report.message(f"fused kernels: {', '.join(kernels)}")
        learning, everything = count_parameters(adapted)
        objective = self.objectives.create(config.objective, model=adapted, config=config)
        wrapped = strategy.wrap(objective, device)
        report.message(
            f"training {learning:,} of {everything:,} parameters on {len(train)} rows, "
            f"validating on {len(validation)}"
        )

        learns = trainable(adapted)
        optimizer = strategy.optimizer(learns, config, adaptation.rate_factors(learns))
        sampler = _sampler(job, objective, strategy, tokenizer, device, report)
        sizes = Sizes(learning, sum(file.stat().st_size for file in _tokenizer_files(job)))
        own = job.run_folder if job.placement.rank == 0 else None
        forecast = RunForecast(config, sizes, report, own, job.forecast)
        started = time.perf_counter()
        loop = TrainingLoop(
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
            machine_pins(device, precision, kernels),
            _sampling(sampler, watch),
            0 if sampler is None else sampler.most_tokens,
            forecast,
        )
        if self.only_forecast:
            found = rehearse(loop, sizes, available)
            strategy.leave()
            return {"forecast": asdict(replace(found, free_bytes=free))}
        counters = loop.run()
        runtime = time.perf_counter() - started

        masters = optimizer.whole()
        strategy.leave()
        if watch is None:
            return {}
        memory = None
        if isinstance(optimizer, MasterOptimizer) and strategy.keeps_whole:
            memory = _memory_by_part(config, objective, optimizer, train, device)
        if not strategy.keeps_whole:  # what is cut, and hooked, is no model to save
            model = adaptation.load(job.base_model_folder, precision, labels=labels, **attention)
            adapted = adaptation.prepare(model, config.base_model)
        for name, parameter in trainable(adapted).items():
            parameter.data = masters[name].to(parameter.device)  # published in float32, as they were trained
        metrics = _metrics(counters, runtime, device) | {
            "memory_by_part": memory,
            "forecast": forecast.compared(peak_memory_bytes(device), runtime),
            "trainable_parameters": learning,
            "cpu_percent": watch.mean_cpu_percent(),
            "device": device.type,
            "precision": str(precision).removeprefix("torch."),
            "threads": job.threads,
            "processes": strategy.processes,
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "machine": platform.machine(),
        }
        with needs_room("what was trained could not be left; make room, then go on with --resume"):
            _leave_artifacts(job, adaptation, adapted, model.config if classifies else None)
            write_whole(job.run_folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        return {"metrics": metrics, "template_hash": tokenizer.template_hash}


def _tokenize(
    job: TrainerJob, tokenizer: ChatTokenizer, split: str, limit: int | None, labels: Sequence[str]
) -> Sequence[TokenizedRow]:
    conversations = read_split(job.dataset_folder, split)[:limit]
    rows = [row for conversation in conversations for row in encode(conversation, tokenizer, job.config, labels)]
    return [row for row in rows if row.supervised]


def _sampler(
    job: TrainerJob,
    objective: Objective,
    strategy: Strategy,
    tokenizer: ChatTokenizer,
    device: torch.device,
    report: Reporter,
) -> Sampler | None:
    """What answers after each evaluation; None where there is nothing to ask."""
    if not objective.generates:
        return None
    if not strategy.keeps_whole:  # rank 0 asks alone
        if job.config.sample_prompts:
            report.message(f"no samples with strategy {job.config.strategy}: its processes hold pieces", "warn")
        return None
    prompts = choose_prompts(job.config, tokenizer, read_split(job.dataset_folder, "validation"))
    if not prompts:
        return None
    return Sampler(objective.model, prompts, tokenizer, job.config.sample_max_tokens, device)


def _sampling(sampler: Sampler | None, watch: Watch | None) -> Callable[[int], None] | None:
    """What the loop calls after each evaluation, with the step."""
    if sampler is None or watch is None:
        return None
    return lambda step: watch.samples(step, sampler.answers())


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
    objective: Objective,
    optimizer: MasterOptimizer,
    rows: Sequence[TokenizedRow],
    device: torch.device,
) -> dict[str, int]:
    """In bytes; the activations are those of the first epoch's micro-batch with the most tokens."""
    plan = plan_epoch(len(rows), config.batch_size, config.gradient_accumulation_steps, config.seed, 0)
    packs = ([rows[place] for place in places] for micro_batches in plan for places in micro_batches)
    largest = max(packs, key=lambda batch: sum(row.tokens for row in batch))
    activations = saved_for_backward(objective, pack(largest).to(device))
    return {**memory_by_part(objective.model, optimizer), "activations": activations}


def _tokenizer_files(job: TrainerJob) -> Sequence[Path]:
    return [file for name in TOKENIZER_FILES if (file := job.base_model_folder / name).is_file()]


def _leave_artifacts(job: TrainerJob, adaptation: Any, adapted: Any, head: Any | None) -> None:
    """``artifacts/``: adapter, tokenizer and template, whole or not at all; of a label head, its config.json."""
    with building(job.run_folder / "artifacts") as folder:
        adaptation.save(adapted, folder)
        if head is not None:
            head.save_pretrained(folder)
        for file in _tokenizer_files(job):
            shutil.copyfile(file, folder / file.name)
        seal(folder, {"base_model": job.config.base_model, "job_id": job.job_id})
