"""LoRA over 16 bits against QLoRA over 4, on one file: ``flask lab quantization``.

Both runs are jobs like any other, one after the other in this process; what they have measured is read from their
records.
"""

from __future__ import annotations

import platform
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.bootstrap import load_training_config
from app.core.entities.evaluation import MeasuredRun
from app.core.entities.identity import Principal
from app.core.entities.jobs import JobState
from app.core.errors import AppError
from app.core.services.jobs.run_folders import new_folder
from app.model.training_service import foreground_app, train

if TYPE_CHECKING:
    from app.core.entities.jobs import FineTuningJob
    from app.core.services import Services

METHODS = {"lora": "LoRA", "qlora": "QLoRA"}
PAGE = 1000  # events


def compare(**changes: Any) -> Path:
    """Train with both; the report's file. ``changes`` are keys of the training config, over ``train_config.yaml``.

    ``AppError`` if a run does not succeed.
    """
    from app.implementations.evaluation.quantization_report import write_report

    app = foreground_app()
    settings, services = app.extensions["settings"], app.extensions["services"]
    if settings.default_base_model:
        changes = {"base_model": settings.default_base_model, **changes}
    runs, config = [], None
    for adaptation, name in METHODS.items():
        config = load_training_config(
            settings.train_config_file,
            **changes,
            adaptation=adaptation,
            experiment_name=f"quantization-{adaptation}",
            model_name=f"quantization-{adaptation}",
        )
        with app.app_context():
            services.models.pull(config.base_model)
        runs.append(_measured(services, train(app, config), name))
    assert config is not None
    folder = new_folder(settings.results_dir, f"quantization_{datetime.now().astimezone():%Y%m%d-%H%M%S}")
    steps = runs[0].losses[-1][0] if runs[0].losses else 0
    about = (
        f"{config.base_model} on {config.dataset_path}, {steps} optimizer steps of {config.batch_size} rows, "
        f"rank {config.lora.r}, seed {config.seed}, "
        f"on {runs[0].metrics['device']} ({platform.machine()}, {runs[0].metrics['threads']} threads)."
    )
    return write_report(folder, runs, about)


def _measured(services: Services, job: FineTuningJob, name: str) -> MeasuredRun:
    if job.state is not JobState.SUCCEEDED:
        code, why = (job.error.code, job.error.message) if job.error else ("", job.state.value)
        raise AppError(f"the run with {name} did not succeed: {why}", code=code or None)
    losses, held_out, after = [], [], 0
    while events := services.job_records.events(Principal.host(), job.id, after=after, limit=PAGE):
        after = events[-1].seq
        for data in (event.data for event in events if event.type == "metrics"):
            if data.get("loss") is not None:
                losses.append((data["step"], data["loss"]))
            if data.get("eval_loss") is not None:
                held_out.append((data["step"], data["eval_loss"]))
    bits = "NF4" if job.config["adaptation"] == "qlora" else job.result["precision"]
    return MeasuredRun(f"{name} ({bits})", job.result, job.result["memory_by_part"], losses, held_out)
