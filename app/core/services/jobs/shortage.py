"""What is said of a run that ran out of memory: by how much, and with which settings it would take less."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.core.entities.forecasts import Forecast, Shortage, in_gigabytes
from app.core.entities.training_config import TrainingConfig
from app.core.services.jobs.forecasting import first_fitting, rough_forecast, weight_bytes


def explain(message: str, shortage: Shortage | None, config: TrainingConfig, job_file: Mapping[str, Any]) -> str:
    """``message`` and the figures; alone where nobody knows how much the trainer had.

    What a run takes is known from itself, or another like it, or roughly from the model's shape. This one took
    more, perhaps, than that says: by as much the others would.
    """
    if shortage is None:
        return message
    base = Path(job_file["base_model_folder"])
    found = _of_run(Path(job_file["run_folder"])) or _known(job_file) or rough_forecast(config, base)
    scale = max(1.0, shortage.wanted_bytes / found.peak_memory_bytes)
    fitting = first_fitting(config, found, shortage.available_bytes / scale, weight_bytes(base))
    if fitting is None:
        return f"{message}: {shortage.in_words()}; no setting would fit: take a smaller base model"
    changes, needed = fitting
    keys = ", ".join(f"{key}: {json.dumps(value)}" for key, value in changes.items())
    return f"{message}: {shortage.in_words()}; it would take about {in_gigabytes(needed * scale)} with {keys}"


def _of_run(folder: Path) -> Forecast | None:
    """What the trainer has measured in its first steps, if it came so far."""
    with suppress(OSError, ValueError, TypeError):
        return Forecast(**json.loads((folder / "forecast.json").read_text("utf-8")))
    return None


def _known(job_file: Mapping[str, Any]) -> Forecast | None:
    return Forecast(**job_file["forecast"]) if job_file["forecast"] else None
