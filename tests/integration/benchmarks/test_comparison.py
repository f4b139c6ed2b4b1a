"""One round with this trainer alone, in processes of their own, on the tiny random model."""

import json
import sys
from pathlib import Path

import pytest

from app.core.entities.models import BaseModelSpec
from app.registries import BASE_MODEL_SOURCES
from benchmarks.comparison import Comparison
from benchmarks.rows import make_equal_rows
from benchmarks.spec import Settings
from benchmarks.workbench import Workbench, save


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    model, folder = tmp_path / "tiny", tmp_path / "bench"
    model.mkdir()
    folder.mkdir()
    BASE_MODEL_SOURCES.load("random")(BaseModelSpec("tiny", "random", "llama"), model)
    bench = Workbench(folder, model, threads=1)
    settings = Settings(epochs=2, learning_rate=1e-2)
    data = bench.lay_out("rows", make_equal_rows(8, asked=6, answered=20, seed=1), settings.max_length)
    return Comparison(bench, data, settings, {"ours": Path(sys.executable)})


def test_a_round_reads_speed_memory_and_loss(comparison: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    comparison.round(1)
    comparison.measure_losses()
    save(comparison.bench, comparison.as_json(), comparison.summary())

    (reading,) = comparison.readings["ours"]
    assert reading.answer.input_tokens == 2 * comparison.data.input_tokens
    assert reading.answer.trained_tokens == 2 * comparison.data.trained_tokens
    assert len(reading.answer.step_ends) == 4
    assert reading.answer.train_runtime < reading.process_seconds
    assert reading.peak_bytes > 100e6  # torch alone takes more
    assert reading.loss < comparison.base_loss
    assert reading.tokens_per_second < comparison.bounds()[0]

    found = json.loads(comparison.bench.folder.with_suffix(".json").read_text())
    assert found["rounds"]["ours"][0]["loss"] == reading.loss
    assert "this trainer" in capsys.readouterr().out


def test_one_that_fails_is_named_and_does_not_come_again(comparison: Comparison) -> None:
    comparison.pythons = {"ours": Path("/bin/false")}
    comparison.round(1)
    comparison.round(2)

    assert comparison.failed["ours"].startswith("status 1")
    assert "this trainer failed" in comparison.summary()
