"""What a run will take: the arithmetic of its plan, what is measured, and that measuring changes nothing."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from app.bootstrap import build_runner
from app.core.entities.forecasts import Forecast
from app.core.entities.models import BaseModelSpec
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import TrainerJob
from app.implementations.training.forecast import Meter, Sizes, Work, work_of
from app.implementations.training.rehearsal import rehearse
from app.registries import BASE_MODEL_SOURCES
from tests.unit.implementations.training.conftest import pairs, rows
from tests.unit.implementations.training.test_runner import write_split

MakeLoop = Callable[..., Any]
SIZES = Sizes(learning=1000, tokenizer_bytes=500)
ROOMY = 2**50


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    BASE_MODEL_SOURCES.load("random")(BaseModelSpec("tiny", "random", "llama"), folder)
    return folder


@pytest.fixture
def make_job(base: Path, tmp_path: Path) -> Callable[..., TrainerJob]:
    def make(folder: str = "run", forecast: Forecast | None = None, **changes: Any) -> TrainerJob:
        dataset, run = tmp_path / "dataset", tmp_path / folder
        dataset.mkdir(exist_ok=True)
        run.mkdir()
        for split, count in (("train", 40), ("validation", 4), ("test", 2)):
            write_split(dataset, split, count)
        settings = {"num_epochs": 2, "batch_size": 4, "precision": "fp32", "device": "cpu", **changes}
        config = TrainingConfig(base_model="tiny", report_to="none", **settings)
        return TrainerJob("ftjob-1", 1, "torch", config, base, dataset, run, threads=1, forecast=forecast)

    return make


def test_the_work_of_a_plan_is_counted_as_the_loop_counts_it(make_loop: MakeLoop, listener: Any) -> None:
    loop = make_loop(listener(), gradient_accumulation_steps=2, num_epochs=3)
    work = loop.work(loop.plan(), 0)
    counters = loop.run()
    assert (work.input_tokens, work.trained_tokens) == (counters.input_tokens, counters.trained_tokens)
    assert work.tokens_left == work.input_tokens
    assert work.steps == work.steps_left == loop.report.steps[-1]["step"]
    assert work.forward_tokens == 3 * sum(row.tokens for row in loop.validation_rows)
    sizes = {sum(loop.train_rows[place].tokens for place in places) for step, _ in loop.plan() for places in step}
    assert work.largest == max(sizes)


def work(processes: int = 1, done: int = 0, scores_first: bool = False, samples: int = 0, **changes: Any) -> Work:
    """Of four steps in two epochs, each of three micro-batches of one row."""
    plan = [([[0], [1], [2]], False), ([[3], [4], [5]], True)] * 2
    config = TrainingConfig(**changes)
    return work_of(config, plan, done, rows(6), rows(3, seed=2), processes, scores_first, samples)


def test_what_is_left_of_a_run_that_goes_on() -> None:
    whole, rest = work(), work(done=3)
    assert (rest.steps, rest.steps_left, rest.input_tokens) == (4, 1, whole.input_tokens)
    assert rest.tokens_left == sum(row.tokens for row in rows(6)[3:])
    assert (whole.saves, rest.saves) == (2, 1)
    assert rest.forward_tokens == whole.forward_tokens // 2


def test_ranks_share_the_passes_of_a_step_and_none_does_nothing() -> None:
    assert work(processes=2).tokens_left == pytest.approx(work().tokens_left * 2 / 3, abs=1)
    assert work(processes=3).tokens_left == pytest.approx(work().tokens_left / 3, abs=1)


def test_evaluations_scores_and_samples_are_forward_passes() -> None:
    validation = sum(row.tokens for row in rows(3, seed=2))
    assert work().forward_tokens == 2 * validation
    assert work(eval_steps=1).forward_tokens == 4 * validation
    assert work(samples=100).forward_tokens == 2 * validation + 200
    scored = sum(row.tokens for row in rows(6)) + validation
    assert work(scores_first=True).forward_tokens == 2 * validation + scored
    assert work(scores_first=True, done=2).forward_tokens == validation


def test_saves_by_steps() -> None:
    assert work(save_steps=1).saves == 4


def test_disk() -> None:
    config = TrainingConfig(save_total_limit=2)
    version = 2 * (4 * 1000 + 500)
    assert SIZES.disk_bytes(config, 1) == 12 * 1000 + version
    assert SIZES.disk_bytes(config, 9) == 3 * 12 * 1000 + version  # one more while the newest is written
    assert SIZES.disk_bytes(config.with_changes(load_best_model_at_end=True), 1) == 16 * 1000 + version


def test_disk_is_what_a_run_leaves(make_job: Callable[..., TrainerJob], listener: Any) -> None:
    job = make_job(save_total_limit=1, num_epochs=1)
    build_runner("torch").run(job, listener())
    folders = [job.run_folder / "checkpoints", job.run_folder / "artifacts", job.run_folder / "artifacts"]
    left = sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())
    said = json.loads((job.run_folder / "forecast.json").read_text())["disk_bytes"]
    assert said == pytest.approx(left, rel=0.15)


@pytest.mark.parametrize("objective", ["sft", "dpo", "pretrain"])
def test_a_rehearsal_leaves_nothing(make_loop: MakeLoop, listener: Any, tmp_path: Path, objective: str) -> None:
    loop = make_loop(listener(), objective=objective, batch_size=2)
    found = rehearse(loop, SIZES, ROOMY)
    assert not list(tmp_path.rglob("step-*"))
    assert found.steps == 15
    assert found.seconds > 0
    assert found.peak_memory_bytes >= found.resting_bytes > 0


def test_what_would_not_fit_is_not_tried(
    make_loop: MakeLoop, listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def passes(available: int) -> list[int]:
        loop = make_loop(listener(), batch_size=2, num_epochs=1)
        made: list[int] = []
        plain = loop.rehearse
        loop.rehearse = lambda places, prepare=(): (made.append(len(places)), plain(places, prepare))
        monkeypatch.setattr("app.implementations.training.rehearsal.SECONDS", 0.0)
        rehearse(loop, SIZES, available)
        return made

    assert passes(ROOMY) == [1, 2, 2]
    assert passes(0) == [1, 2]


def test_a_run_says_in_its_first_lines_what_it_will_take(
    make_job: Callable[..., TrainerJob], listener: Any
) -> None:
    heard = listener()
    job = make_job()
    result = build_runner("torch").run(job, heard)
    first, then = [message for message in heard.messages if message.startswith("forecast: ")]
    assert first.startswith("forecast: 20 steps, ")
    assert (
        f"{result['metrics']['input_tokens']:,} tokens ({result['metrics']['trained_tokens']:,} trained)" in first
    )
    assert "peak memory" in then
    kept = Forecast(**json.loads((job.run_folder / "forecast.json").read_text()))
    assert kept.in_words() in then


def test_a_finished_run_records_how_wrong_that_was(make_job: Callable[..., TrainerJob], listener: Any) -> None:
    job = make_job()
    metrics = build_runner("torch").run(job, listener())["metrics"]
    said = metrics["forecast"]
    assert said["memory_ratio"] == said["peak_memory_bytes"] / metrics["peak_memory_bytes"]
    assert said["time_ratio"] == said["seconds"] / metrics["train_runtime"]
    assert json.loads((job.run_folder / "metrics.json").read_text())["forecast"] == said


def test_what_was_forecast_before_is_said_before_the_first_step_and_changes_no_number(
    make_job: Callable[..., TrainerJob], listener: Any
) -> None:
    rehearsal = make_job("rehearsal")
    found = Forecast(**build_runner("torch-forecast").run(rehearsal, listener())["forecast"])
    assert list(rehearsal.run_folder.iterdir()) == []
    measured, told = listener(), listener()
    build_runner("torch").run(make_job("measured"), measured)
    job = make_job("told", found)
    build_runner("torch").run(job, told)
    (line,) = [message for message in told.messages if message.startswith("forecast: ")]
    assert found.in_words() in line
    assert Forecast(**json.loads((job.run_folder / "forecast.json").read_text())) == found
    assert [event["loss"] for event in measured.steps] == [event["loss"] for event in told.steps]
    weights = "artifacts/adapter_model.safetensors"
    folder = job.run_folder.parent
    assert (folder / "measured" / weights).read_bytes() == (folder / "told" / weights).read_bytes()


def test_the_forecast_of_a_run_that_goes_on_is_of_what_is_left(make_loop: MakeLoop, listener: Any) -> None:
    loop = make_loop(listener(), num_epochs=2)
    plan = loop.plan()
    meter = Meter()
    meter.start(torch.device("cpu"), 0)
    with meter.one_pass(100), meter.one_update():
        pass
    with meter.one_pass(100):
        pass
    meter.stop()
    meter._passes, meter._updates = [(100, 9.0), (100, 1.0)], [0.0]
    whole = meter.forecast(loop.config, loop.work(plan, 0), SIZES)
    rest = meter.forecast(loop.config, loop.work(plan, len(plan) // 2), SIZES)
    assert rest.seconds == pytest.approx(whole.seconds / 2, rel=0.1)
    assert asdict(replace(rest, seconds=0)) == asdict(replace(whole, seconds=0, disk_bytes=rest.disk_bytes))


def test_memory_grows_with_the_tokens_of_the_largest_batch() -> None:
    meter = Meter()
    meter._resting, meter._kept = 2**40, [(10, 100), (20, 300)]
    meter._passes, meter._updates = [(10, 1.0), (20, 2.0)], [0.1]
    found = meter.forecast(TrainingConfig(), replace(work(), largest=200), SIZES)
    assert found.token_bytes == 15.0
    assert 2**40 + 3000 < found.peak_memory_bytes < 2**40 + 3000 * 1.7
    longer = meter.forecast(TrainingConfig(), replace(work(), largest=200, steps_left=1000), SIZES)
    assert longer.peak_memory_bytes == 2**40 + 3000 + 2100  # what can be lost has been
    best = meter.forecast(TrainingConfig(load_best_model_at_end=True), replace(work(), largest=200), SIZES)
    assert best.peak_memory_bytes == found.peak_memory_bytes + 4 * 1000


def test_pairs_are_counted_with_both_answers() -> None:
    made = pairs(6)
    plan = [([[0, 1, 2, 3, 4, 5]], True)]
    counted = work_of(TrainingConfig(), plan, 0, made, [], 1, False)
    assert counted.input_tokens == sum(len(row.input_ids) + len(row.rejected.input_ids) for row in made)
