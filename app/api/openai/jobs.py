"""Jobs, events and checkpoints in the shapes of OpenAI's wire."""

import math
import time
from collections.abc import Mapping
from typing import Any

from app.api.openai.files import result_file_id
from app.api.openai.job_schemas import OBJECTIVES
from app.core.entities.jobs import FINAL_STATES, FineTuningJob, JobEvent, JobState
from app.core.entities.tuning import SavedCheckpoint

# What events call it here, and what OpenAI's do. Here all validation rows are measured each time.
EVENT_NAMES: Mapping[str, tuple[str, ...]] = {
    "loss": ("train_loss",),
    "accuracy": ("train_accuracy",),
    "eval_loss": ("valid_loss", "full_valid_loss"),
    "eval_accuracy": ("valid_accuracy", "full_valid_accuracy"),
}

Shape = dict[str, Any]


def job_shape(job: FineTuningJob, fine_tuned_model: str | None, multiplier: float) -> Shape:
    config = job.config
    given = {
        "n_epochs": config["num_epochs"],
        "batch_size": config["batch_size"] * config["gradient_accumulation_steps"] * config["processes"],
        "learning_rate_multiplier": multiplier,
    }
    kind = next((kind for kind, objective in OBJECTIVES.items() if objective == config["objective"]), None)
    beta = {"beta": config["dpo_beta"]} if kind == "dpo" else {}
    file = job.dataset_id if job.dataset_number is None else f"{job.dataset_id}:{job.dataset_number}"
    named = config.get("dataset_id") or config["dataset_path"]
    eta = job.progress.eta_seconds if job.state is JobState.RUNNING else None
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": int(job.created_at.timestamp()),
        "finished_at": int(job.finished_at.timestamp()) if job.finished_at else None,
        "estimated_finish": None if eta is None or not math.isfinite(eta) else int(time.time() + eta),
        "model": job.base_model,
        "fine_tuned_model": fine_tuned_model,
        "organization_id": job.project_id,
        "status": job.state.value,
        "training_file": job.request.get("training_file") or file or named,
        "validation_file": job.request.get("validation_file"),
        "hyperparameters": given,
        "method": kind and {"type": kind, kind: {"hyperparameters": {**given, **beta}}},
        "seed": config["seed"],
        "trained_tokens": job.result.get("trained_tokens"),
        "result_files": [result_file_id(job)] if job.state is JobState.SUCCEEDED else [],
        "error": _error(job),
        "integrations": [],
        "metadata": job.request.get("metadata", {}),
    }


def event_shape(job_id: str, event: JobEvent) -> Shape:
    return {
        "id": event_id(job_id, event.seq),
        "object": "fine_tuning.job.event",
        "created_at": int(event.created_at.timestamp()),
        "level": event.level,
        "message": event.message,
        "type": event.type,
        "data": _named(event.data),
    }


def event_id(job_id: str, number: int) -> str:
    return f"{job_id.replace('ftjob-', 'ftevent-')}-{number}"


def checkpoint_shape(job: FineTuningJob, saved: SavedCheckpoint) -> Shape:
    key = job.id.removeprefix("ftjob-")
    name = job.config["model_name"] or job.config["experiment_name"]
    return {
        "id": f"ftckpt-{key}-{saved.step}",
        "object": "fine_tuning.job.checkpoint",
        "created_at": int(saved.created_at.timestamp()),
        "fine_tuned_model_checkpoint": f"ft:{job.base_model}:{job.project_id}:{name}:{key}:ckpt-step-{saved.step}",
        "fine_tuning_job_id": job.id,
        "step_number": saved.step,
        "metrics": {"step": saved.step, **_named(saved.figures)},
    }


def _named(data: Mapping[str, Any]) -> Shape:
    return {name: value for key, value in data.items() for name in EVENT_NAMES.get(key, (key,))}


def _error(job: FineTuningJob) -> Shape | None:
    if job.error is None or job.state not in FINAL_STATES:
        return None
    lines = [job.error.message, *(f"{fault.where}: {fault.message}" for fault in job.error.faults[:100])]
    param = "training_file" if job.error.faults else None
    return {"code": job.error.code, "message": "\n".join(lines), "param": param}
