"""What a run that ran out of memory is told to change."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.core.entities.forecasts import Forecast, Shortage
from app.core.entities.training_config import TrainingConfig
from app.core.services.jobs.shortage import explain

GB = 10**9
CONFIG = TrainingConfig(experiment_name="a", batch_size=8, gradient_accumulation_steps=1)
# 2 GB, and 10 MB for each of 800 tokens.
FOUND = Forecast(10 * GB, 60.0, 100, 1, 1, 1, 2 * GB, 1e7, 800)


def job_file(folder: Path, forecast: Forecast | None) -> dict[str, Any]:
    known = None if forecast is None else asdict(forecast)
    return {"base_model_folder": str(folder), "run_folder": str(folder), "forecast": known}


def test_the_batch_that_would_fit_is_named(tmp_path: Path) -> None:
    said = explain("out of memory", Shortage(10 * GB, 8 * GB), CONFIG, job_file(tmp_path, FOUND))
    assert said == (
        "out of memory: it wanted 10.0 GB and could have 8.0 GB: 2.0 GB too few; it would take about 6.0 GB with "
        "batch_size: 4, gradient_accumulation_steps: 2"
    )


def test_a_few_bytes_are_not_none(tmp_path: Path) -> None:
    said = explain("out of memory", Shortage(GB + 4096, GB), CONFIG, job_file(tmp_path, FOUND))
    assert "it wanted 1.0 GB and could have 1.0 GB: 1 MB too few" in said


def test_a_forecast_that_was_too_low_is_so_for_the_others_too(tmp_path: Path) -> None:
    said = explain("out of memory", Shortage(20 * GB, 15 * GB), CONFIG, job_file(tmp_path, FOUND))
    assert "it would take about 12.0 GB with batch_size: 4" in said  # twice what was forecast


def test_what_the_run_itself_has_measured_comes_first(tmp_path: Path) -> None:
    measured = Forecast(10 * GB, 60.0, 100, 1, 1, 1, 6 * GB, 5e6, 800)
    (tmp_path / "forecast.json").write_text(json.dumps(asdict(measured)))
    said = explain("out of memory", Shortage(10 * GB, 9 * GB), CONFIG, job_file(tmp_path, FOUND))
    assert "it would take about 8.0 GB with batch_size: 4" in said


def test_without_a_forecast_the_models_shape_says_it(tmp_path: Path) -> None:
    shape = {"hidden_size": 1000, "num_hidden_layers": 10, "intermediate_size": 4000, "vocab_size": 1000}
    (tmp_path / "config.json").write_text(json.dumps(shape))
    said = explain("out of memory", Shortage(8 * GB, 5 * GB), CONFIG, job_file(tmp_path, None))
    assert "GB with batch_size: 4, gradient_accumulation_steps: 2" in said


def test_where_no_setting_is_enough(tmp_path: Path) -> None:
    said = explain("out of memory", Shortage(10 * GB, GB // 2), CONFIG, job_file(tmp_path, FOUND))
    assert said.endswith("no setting would fit: take a smaller base model")


def test_where_nobody_knows_what_there_was(tmp_path: Path) -> None:
    assert explain("it was ended", None, CONFIG, job_file(tmp_path, FOUND)) == "it was ended"
