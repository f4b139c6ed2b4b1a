"""What a run is made of, built by the names in its config and ready for the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from app.core.entities.datasets import Split, TokenizedRow
from app.core.factories import ADAPTATIONS, OBJECTIVES, STRATEGIES
from app.core.interfaces.components import ChatTokenizer, Reporter, TrainerJob
from app.core.services.data.encoding import encode, labels_of
from app.core.services.data.ledger import first_rows
from app.implementations.data.cuts import read_split
from app.implementations.data.encoder_tokenizer import load_tokenizer
from app.implementations.data.token_cache import FileTokenCache
from app.implementations.models.devices import pick_device, pick_precision
from app.implementations.models.loading import loader_for
from app.implementations.training import packed_attention
from app.implementations.training.adaptations.lora import count_parameters
from app.implementations.training.kernels.install import install_kernels
from app.implementations.training.loop import TrainingFailed
from app.implementations.training.method import Adaptation, Objective, Strategy
from app.implementations.training.samples import Sampler, choose_prompts


@dataclass(frozen=True, slots=True)
class Assembly:
    """``adapted`` is ``model`` with what learns, ``wrapped`` the strategy's wrapping of ``objective``."""

    device: torch.device
    precision: torch.dtype
    tokenizer: ChatTokenizer
    labels: Sequence[str]  # of a label head
    train: Sequence[TokenizedRow]
    validation: Sequence[TokenizedRow]
    strategy: Strategy
    adaptation: Adaptation
    model: Any
    adapted: nn.Module
    kernels: Sequence[str]
    objective: Objective
    wrapped: nn.Module
    learning: int  # parameters


def assemble(job: TrainerJob, strategy_options: Mapping[str, Any], report: Reporter) -> Assembly:
    """Meets the other processes on the way. ``TrainingFailed`` (invalid_data) with nothing left to train on."""
    config = job.config
    device = pick_device(config.device)
    precision = pick_precision(config.precision, device)
    tokenizer = load_tokenizer(job.base_model_folder, config.reasoning)
    labels = labels_of(read_split(job.dataset_folder, "train")) if config.has_label_head else []
    kept = FileTokenCache().find(job.dataset_folder, tokenizer, config)  # the worker's check left them
    train = _rows(job, tokenizer, kept, "train", labels)
    validation = _rows(job, tokenizer, kept, "validation", labels)
    if not train:
        raise TrainingFailed("no row has a token to train on", code="invalid_data")

    strategy: Strategy = STRATEGIES.create(config.strategy)
    strategy.join(config, job.placement, device, strategy_options)
    report.message(f"loading {config.base_model} on {device.type} in {str(precision).removeprefix('torch.')}")
    torch.manual_seed(config.seed)
    adaptation: Adaptation = ADAPTATIONS.create(config.adaptation, config=config)
    model = load(job, adaptation, tokenizer, device, precision, labels)
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
    objective: Objective = OBJECTIVES.create(config.objective, model=adapted, config=config)
    wrapped = strategy.wrap(objective, device)
    report.message(
        f"training {learning:,} of {everything:,} parameters on {len(train)} rows, validating on {len(validation)}"
    )
    return Assembly(
        device,
        precision,
        tokenizer,
        labels,
        train,
        validation,
        strategy,
        adaptation,
        model,
        adapted,
        kernels,
        objective,
        wrapped,
        learning,
    )


def load(
    job: TrainerJob,
    adaptation: Adaptation,
    tokenizer: ChatTokenizer,
    device: torch.device,
    precision: torch.dtype,
    labels: Sequence[str],
) -> Any:
    """Load the base model as it is trained."""
    attention = {"attn_implementation": packed_attention.NAME} if tokenizer.generates else {}
    loader = loader_for(adaptation.quantised, labels, device)
    return adaptation.load(loader, job.base_model_folder, precision, **attention)


def sampler_of(job: TrainerJob, parts: Assembly, report: Reporter) -> Sampler | None:
    """What answers after each evaluation; None where there is nothing to ask."""
    if not parts.objective.generates:
        return None
    if not parts.strategy.keeps_whole:  # rank 0 asks alone
        if job.config.sample_prompts:
            report.message(f"no samples with strategy {job.config.strategy}: its processes hold pieces", "warn")
        return None
    prompts = choose_prompts(job.config, parts.tokenizer, read_split(job.dataset_folder, "validation"))
    if not prompts:
        return None
    return Sampler(parts.objective.model, prompts, parts.tokenizer, job.config.sample_max_tokens, parts.device)


def _rows(
    job: TrainerJob,
    tokenizer: ChatTokenizer,
    kept: Mapping[Split, Sequence[TokenizedRow]] | None,
    split: Split,
    labels: Sequence[str],
) -> Sequence[TokenizedRow]:
    limit = job.config.train_samples if split == "train" else None
    if kept is not None:
        rows = first_rows(kept[split], limit)
    else:
        conversations = read_split(job.dataset_folder, split)[:limit]
        rows = [row for each in conversations for row in encode(each, tokenizer, job.config, labels)]
    return [row for row in rows if row.supervised]
