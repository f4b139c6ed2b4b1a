"""Whether a run fits, what would, and how rehearsals are kept, refused and ended."""

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from app.core.entities.forecasts import Forecast
from app.core.entities.training_config import TrainingConfig
from app.core.errors import AppError, Fault, Invalid, Unavailable
from app.core.interfaces.operations import TrainerOutcome
from app.core.services.jobs.forecasting import Forecasts, rough_bytes, suggest
from tests.unit.core.services.jobs.execution.conftest import FakeTrainer

GB = 10**9
FOUND = Forecast(
    peak_memory_bytes=5 * GB,
    seconds=60.0,
    steps=10,
    input_tokens=1000,
    trained_tokens=400,
    disk_bytes=10**6,
    resting_bytes=GB,
    token_bytes=GB / 250,
    largest_batch_tokens=1000,
)
CONFIG = TrainingConfig(batch_size=8, gradient_accumulation_steps=2, max_length=256)


class Rehearsals(FakeTrainer):
    """Ends at once with ``outcome``; None: never by itself."""

    def __init__(self, outcome: TrainerOutcome | None) -> None:
        super().__init__()
        self.ending = outcome
        self.count = 0

    def start(self, *arguments: Any) -> Any:
        handle = super().start(*arguments)
        self.count += 1
        if self.ending:
            self.end(self.ending)
        return handle


def success(found: Forecast = FOUND) -> TrainerOutcome:
    return TrainerOutcome("succeeded", result={"forecast": asdict(found)})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """2 layers of 100, 1,000 bytes of weights."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"hidden_size": 100, "num_hidden_layers": 2}))
    (folder / "model.safetensors").write_bytes(bytes(1000))
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return tmp_path / "digest-42"


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Forecasts]:
    def make_one(trainer: FakeTrainer, available: int = 16 * GB, seconds: float = 10.0) -> Forecasts:
        folder = tmp_path / "forecasts"
        folder.mkdir(exist_ok=True)
        return Forecasts(trainer, folder, lambda device: available, threads=1, seconds=seconds)

    return make_one


def test_one_that_fits(make: Callable[..., Forecasts], base: Path, dataset: Path) -> None:
    trainer = Rehearsals(success())
    judged = make(trainer).estimate(CONFIG, base, dataset)
    assert (judged.forecast, judged.available_bytes, judged.fits, judged.suggestion) == (
        FOUND,
        16 * GB,
        True,
        None,
    )
    assert trainer.job_file["config"] == CONFIG.model_dump(mode="json")
    assert not Path(trainer.job_file["run_folder"]).exists()
    assert trainer.kills == 1


def test_the_same_question_is_answered_from_what_was_kept(
    make: Callable[..., Forecasts], base: Path, dataset: Path
) -> None:
    trainer = Rehearsals(success())
    make(trainer).estimate(CONFIG, base, dataset)
    again = make(trainer)
    same = CONFIG.with_changes(learning_rate=0.5, experiment_name="another", warmup_steps=3)
    assert again.estimate(same, base, dataset).forecast == FOUND
    assert trainer.count == 1
    others = [(CONFIG.with_changes(batch_size=4), dataset), (CONFIG, dataset.with_name("digest-43"))]
    for count, (config, data) in enumerate(others, 2):
        again.estimate(config, base, data)
        assert trainer.count == count


def test_what_another_version_of_the_code_kept_is_made_anew(
    make: Callable[..., Forecasts], base: Path, dataset: Path, tmp_path: Path
) -> None:
    trainer = Rehearsals(success())
    forecasts = make(trainer)
    forecasts.estimate(CONFIG, base, dataset)
    (kept,) = (tmp_path / "forecasts").glob("*.json")
    kept.write_text(json.dumps({"seconds": 3}))
    assert forecasts.known(CONFIG, base, dataset) is None
    assert forecasts.estimate(CONFIG, base, dataset).forecast == FOUND


@pytest.mark.parametrize(
    ("available", "expected"),
    [
        (4 * GB, {"batch_size": 4, "gradient_accumulation_steps": 4}),  # 1 + 2 GB
        (3 * GB, {"batch_size": 2, "gradient_accumulation_steps": 8}),  # 1 + 1 GB
        (int(1.3 * GB), {"gradient_checkpointing": True, "batch_size": 1, "gradient_accumulation_steps": 16}),
        (GB // 2, None),  # less than torch itself
    ],
)
def test_a_suggestion_changes_as_little_as_it_must(available: int, expected: dict[str, Any] | None) -> None:
    assert suggest(CONFIG, FOUND, available, weights=0) == expected


def test_weights_that_are_too_large_are_quantised_or_left_frozen() -> None:
    found = replace(FOUND, resting_bytes=9 * GB)
    small = {"gradient_checkpointing": True, "batch_size": 2, "gradient_accumulation_steps": 8}
    assert suggest(CONFIG, found, 2 * GB, weights=2 * GB) == {"adaptation": "qlora", **small}
    sharded = CONFIG.with_changes(strategy="fsdp", processes=2)  # it cannot cut quantised weights
    assert suggest(sharded, found, 2 * GB, weights=2 * GB) is None
    full = CONFIG.with_changes(adaptation="full")
    assert suggest(full, found, 8 * GB, weights=GB) == {"adaptation": "lora"}


def test_a_shorter_row_comes_last() -> None:
    one_row = CONFIG.with_changes(batch_size=1, gradient_checkpointing=True)
    found = replace(FOUND, largest_batch_tokens=256)
    assert suggest(one_row, found, int(1.8 * GB), weights=0) == {"max_length": 128}


def test_a_job_that_cannot_fit_is_refused_with_what_would(
    make: Callable[..., Forecasts], base: Path, dataset: Path
) -> None:
    forecasts = make(Rehearsals(success()), available=4 * GB)
    forecasts.estimate(CONFIG, base, dataset)
    with pytest.raises(Invalid) as refused:
        forecasts.check_fit(CONFIG, base, dataset, 100, lambda: True)
    assert refused.value.code == "does_not_fit"
    assert "batch_size: 4, gradient_accumulation_steps: 4" in refused.value.message


def test_processes_share_the_host_but_not_a_gpu(make: Callable[..., Forecasts], base: Path, dataset: Path) -> None:
    many = CONFIG.with_changes(strategy="ddp", processes=4)
    assert make(Rehearsals(success())).estimate(many, base, dataset).fits is False
    on_gpus = replace(FOUND, device="cuda", free_bytes=6 * GB)
    others = make(Rehearsals(success(on_gpus)))
    judged = others.estimate(many.with_changes(seed=1), base, dataset)
    assert (judged.fits, judged.available_bytes) == (True, 6 * GB)


def test_a_job_that_clearly_fits_is_not_rehearsed(
    make: Callable[..., Forecasts], base: Path, dataset: Path
) -> None:
    trainer = Rehearsals(success())
    make(trainer).check_fit(CONFIG, base, dataset, 100, lambda: True)
    assert trainer.count == 0


def test_a_job_near_the_limit_is_rehearsed(make: Callable[..., Forecasts], base: Path, dataset: Path) -> None:
    near = rough_bytes(CONFIG, base, 100)
    trainer = Rehearsals(success(replace(FOUND, peak_memory_bytes=near)))
    make(trainer, available=near).check_fit(CONFIG, base, dataset, 100, lambda: True)
    assert trainer.count == 1


def test_longer_rows_wider_numbers_and_plain_heads_take_more(base: Path) -> None:
    rough = rough_bytes(CONFIG, base, 100)
    assert rough_bytes(CONFIG, base, 200) > rough
    assert rough_bytes(CONFIG.with_changes(precision="fp32"), base, 100) > rough
    assert rough_bytes(CONFIG.with_changes(gradient_checkpointing=True), base, 100) < rough


def test_weights_that_do_not_fit_are_not_loaded_to_see(
    make: Callable[..., Forecasts], base: Path, dataset: Path
) -> None:
    trainer = Rehearsals(success())
    forecasts = make(trainer, available=900)
    calls = (
        lambda: forecasts.estimate(CONFIG, base, dataset),
        lambda: forecasts.check_fit(CONFIG, base, dataset, 100, lambda: True),
    )
    for call in calls:
        with pytest.raises(Invalid, match="weights") as refused:
            call()
        assert refused.value.code == "does_not_fit"
    assert trainer.count == 0


@pytest.mark.parametrize(
    ("outcome", "kind", "code"),
    [
        (TrainerOutcome("crashed", "out_of_memory", "killed"), Invalid, "does_not_fit"),
        (TrainerOutcome("failed", "out_of_memory", "no more"), Invalid, "does_not_fit"),
        (TrainerOutcome("failed", "device_missing", "no cuda", faults=(Fault("a", "b", "c"),)), Invalid, None),
        (TrainerOutcome("crashed", "trainer_failed", "by SIGSEGV"), Unavailable, "estimate_failed"),
        (TrainerOutcome("stopped"), Unavailable, "estimate_failed"),
    ],
)
def test_how_a_rehearsal_may_end(
    make: Callable[..., Forecasts],
    base: Path,
    dataset: Path,
    outcome: TrainerOutcome,
    kind: type[AppError],
    code: str | None,
) -> None:
    with pytest.raises(kind) as ended:
        make(Rehearsals(outcome)).estimate(CONFIG, base, dataset)
    assert ended.value.code == (code or outcome.code)
    assert ended.value.faults == outcome.faults


def test_a_rehearsal_has_its_time(make: Callable[..., Forecasts], base: Path, dataset: Path) -> None:
    trainer = Rehearsals(None)
    with pytest.raises(Unavailable) as ended:
        make(trainer, seconds=0.05).estimate(CONFIG, base, dataset)
    assert (ended.value.code, ended.value.retry_after) == ("estimate_timeout", 10)
    assert trainer.kills == 1


def test_not_to_know_fails_no_job(make: Callable[..., Forecasts], base: Path, dataset: Path) -> None:
    near = rough_bytes(CONFIG, base, 100)
    trainer = Rehearsals(TrainerOutcome("crashed", "trainer_failed", "by SIGSEGV"))
    make(trainer, available=near).check_fit(CONFIG, base, dataset, 100, lambda: True)
    assert trainer.count == 1


def test_one_at_a_time(make: Callable[..., Forecasts], base: Path, dataset: Path) -> None:
    slow = Rehearsals(None)
    first = threading.Thread(target=make(slow).estimate, args=(CONFIG, base, dataset))
    first.start()
    assert slow.started.wait(5)
    with pytest.raises(Unavailable) as busy:
        make(Rehearsals(success())).estimate(CONFIG.with_changes(seed=1), base, dataset)
    slow.end(success())
    first.join(5)
    assert not first.is_alive()
    assert (busy.value.code, busy.value.retry_after) == ("estimate_busy", 10)


def test_the_oldest_forecasts_go(
    make: Callable[..., Forecasts], base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.core.services.jobs.forecasting.MOST_KEPT", 2)
    forecasts = make(Rehearsals(success()))
    for seed in range(4):
        forecasts.estimate(CONFIG.with_changes(seed=seed), base, dataset)
    assert len(list((tmp_path / "forecasts").glob("*.json"))) == 2
    assert forecasts.known(CONFIG.with_changes(seed=3), base, dataset) == FOUND
