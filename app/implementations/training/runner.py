"""One training run in a trainer process: what it is made of, the loop, and what it leaves in the run folder."""

import json
import os
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
from app.core.factories import TRACKERS
from app.core.interfaces.components import Reporter, TrainerJob, TrainingRunner
from app.core.services.jobs.room import RUN_FOLDER, needs_room
from app.core.services.jobs.tracking import chosen_trackers
from app.implementations.data.chat_template import TEMPLATE_FILE
from app.implementations.models.devices import free_memory_bytes, peak_memory_bytes, pick_device
from app.implementations.models.host_memory import available_bytes
from app.implementations.training import preparation
from app.implementations.training.adaptations.lora import trainable
from app.implementations.training.assembly import Assembly, assemble, load, sampler_of
from app.implementations.training.batches import pack, plan_epoch
from app.implementations.training.forecast import RunForecast, Sizes
from app.implementations.training.loop import Counters, TrainingLoop
from app.implementations.training.memory import memory_by_part, saved_for_backward
from app.implementations.training.objective_module import ObjectiveModule
from app.implementations.training.optimizer import MasterOptimizer, Masters
from app.implementations.training.pins import machine_pins
from app.implementations.training.rehearsal import rehearse
from app.implementations.training.watch import Watch
from app.utils.files import write_whole
from app.utils.folders import building, seal

# What a version needs beside its weights to render a conversation as in training.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    TEMPLATE_FILE,
    "generation_config.json",
)


class TorchRunner(TrainingRunner):
    """With ``only_forecast`` it takes a few steps, says what the run would take, and leaves nothing."""

    def __init__(
        self,
        strategy_options: Callable[[TrainingConfig], Mapping[str, Any]],
        only_forecast: bool = False,
    ) -> None:
        self.strategy_options = strategy_options
        self.only_forecast = only_forecast

    @classmethod
    def prepare(cls, base_model_folder: Path | None) -> None:
        preparation.prepare(base_model_folder)

    def run(self, job: TrainerJob, report: Reporter) -> Mapping[str, Any]:
        """See the interface. Leaves ``loss_curve.png`` and ``samples.jsonl`` too."""
        torch.set_num_threads(job.threads)
        _bound_primitives(job.config)
        if self.only_forecast:
            return self._forecast(job, report)
        if job.placement.rank != 0:
            return self._train(job, report, None)
        trackers = {name: TRACKERS.create(name) for name in chosen_trackers(job.config)}
        with Watch(report, job, trackers, pick_device(job.config.device)) as watch:
            return self._train(job, watch, watch)

    def _forecast(self, job: TrainerJob, report: Reporter) -> Mapping[str, Any]:
        free = free_memory_bytes(pick_device(job.config.device))
        available = available_bytes() // job.config.processes if free is None else free
        parts = assemble(job, self.strategy_options(job.config), report)
        loop, forecast = _loop(job, parts, report, None)
        found = rehearse(loop, forecast.sizes, available)
        parts.strategy.leave()
        return {"forecast": asdict(replace(found, free_bytes=free))}

    def _train(self, job: TrainerJob, report: Reporter, watch: Watch | None) -> Mapping[str, Any]:
        """``watch`` is rank 0's, which alone leaves anything."""
        parts = assemble(job, self.strategy_options(job.config), report)
        loop, forecast = _loop(job, parts, report, watch)
        started = time.perf_counter()
        counters = loop.run()
        runtime = time.perf_counter() - started
        masters = loop.optimizer.whole()
        parts.strategy.leave()
        if watch is None:
            return {}
        metrics = _metrics(counters, runtime, parts.device)  # before a pass for memory_by_part moves the peak
        metrics |= {
            "memory_by_part": _memory_by_part(job.config, parts, loop.optimizer),
            "forecast": forecast.compared(metrics["peak_memory_bytes"], runtime),
            "trainable_parameters": parts.learning,
            "cpu_percent": watch.mean_cpu_percent(),
            "device": parts.device.type,
            "precision": str(parts.precision).removeprefix("torch."),
            "threads": job.threads,
            "processes": parts.strategy.processes,
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "machine": platform.machine(),
        }
        with needs_room(RUN_FOLDER):
            _leave_artifacts(job, parts, masters)
            write_whole(job.run_folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        return {"metrics": metrics, "template_hash": parts.tokenizer.template_hash}


def _bound_primitives(config: TrainingConfig) -> None:
    """oneDNN keeps what it compiled for each shape, 1,024 of them, half a megabyte each, and a run's packs have
    ever other shapes. A pass goes through about eight for each of its rows, once a layer."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(max(256, 8 * config.batch_size)))


def _loop(
    job: TrainerJob, parts: Assembly, report: Reporter, watch: Watch | None
) -> tuple[TrainingLoop, RunForecast]:
    learns = trainable(parts.adapted)
    optimizer = parts.strategy.optimizer(learns, job.config, parts.adaptation.rate_factors(learns))
    sampler = sampler_of(job, parts, report)
    sizes = Sizes(parts.learning, sum(file.stat().st_size for file in _tokenizer_files(job)))
    own_folder = job.run_folder if job.placement.rank == 0 else None
    forecast = RunForecast(job.config, sizes, report, own_folder, job.forecast)
    loop = TrainingLoop(
        job.config,
        parts.objective,
        parts.wrapped,
        optimizer,
        parts.strategy,
        parts.device,
        parts.train,
        parts.validation,
        job.run_folder / "checkpoints" / job.job_id,  # two jobs may name one output_dir
        report,
        machine_pins(parts.device, parts.precision, parts.kernels),
        None if sampler is None or watch is None else lambda step: watch.samples(step, sampler.answers()),
        0 if sampler is None else sampler.most_tokens,
        forecast,
    )
    return loop, forecast


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


def _memory_by_part(config: TrainingConfig, parts: Assembly, optimizer: Masters) -> dict[str, int] | None:
    """In bytes; the activations are those of the first epoch's micro-batch with the most tokens.

    None where the processes hold pieces.
    """
    if not isinstance(optimizer, MasterOptimizer) or not parts.strategy.keeps_whole:
        return None
    largest = max(_micro_batches(config, parts.train), key=lambda rows: sum(row.tokens for row in rows))
    activations = saved_for_backward(ObjectiveModule(parts.objective), pack(largest).to(parts.device))
    return {**memory_by_part(parts.objective.model, optimizer), "activations": activations}


def _micro_batches(config: TrainingConfig, rows: Sequence[TokenizedRow]) -> list[list[TokenizedRow]]:
    plan = plan_epoch(len(rows), config.batch_size, config.gradient_accumulation_steps, config.seed, 0)
    return [[rows[place] for place in places] for micro_batches in plan for places in micro_batches]


def _tokenizer_files(job: TrainerJob) -> Sequence[Path]:
    return [file for name in TOKENIZER_FILES if (file := job.base_model_folder / name).is_file()]


def _leave_artifacts(job: TrainerJob, parts: Assembly, masters: Mapping[str, torch.Tensor]) -> None:
    """``artifacts/``: adapter, tokenizer and template, whole or not at all; of a label head, its config.json.

    The template has a file of its own, wherever it stood, and the manifest its hash.
    """
    model, adapted = parts.model, parts.adapted
    if not parts.strategy.keeps_whole:  # what is cut, and hooked, is no model to save
        model = load(job, parts.adaptation, parts.tokenizer, parts.device, parts.precision, parts.labels)
        adapted = parts.adaptation.prepare(model, job.config.base_model)
    for name, parameter in trainable(adapted).items():
        parameter.data = masters[name].to(parameter.device)  # published in float32, as they were trained
    with building(job.run_folder / "artifacts") as folder:
        parts.adaptation.save(adapted, folder)
        if parts.labels:
            model.config.save_pretrained(folder)
        for file in _tokenizer_files(job):
            shutil.copyfile(file, folder / file.name)
        template = folder / TEMPLATE_FILE
        if parts.tokenizer.generates and not template.exists():
            template.write_text(parts.tokenizer.template_text, "utf-8")
        about = {"base_model": job.config.base_model, "job_id": job.job_id}
        seal(folder, {**about, "template_hash": parts.tokenizer.template_hash})
