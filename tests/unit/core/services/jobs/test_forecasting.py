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
from app.core.errors import AppError, DiskFull, Fault, Invalid, Unavailable
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
        return Forecasts(trainer, "runner", folder, lambda device: available, threads=1, seconds=seconds)

    return make_one


def test_one_that_fits(make: Callable[..., Forecasts], base: Path, dataset: Path) -> None:
    forecasts = make(Rehearsals(None))
    found = forecasts.keep(CONFIG, base, dataset, success())
    assert found == FOUND
    judged = forecasts.judge(CONFIG, found, base)
    assert (judged.available_bytes, judged.fits, judged.suggestion) == (16 * GB, True, None)


def test_the_same_question_is_answered_from_what_was_kept(
    make: Callable[..., Forecasts], base: Path, dataset: Path
) -> None:
    make(Rehearsals(None)).keep(CONFIG, base, dataset, success())
    again = make(Rehearsals(None))
    same = CONFIG.with_changes(learning_rate=0.5, experiment_name="another", warmup_steps=3)
    assert again.known(same, base, dataset) == FOUND
    assert again.known(CONFIG.with_changes(batch_size=4), base, dataset) is None
    assert again.known(CONFIG, base, dataset.with_name("digest-43")) is None


def test_what_another_version_of_the_code_kept_is_made_anew(
    make: Callable[..., Forecasts], base: Path, dataset: Path, tmp_path: Path
) -> None:
    forecasts = make(Rehearsals(None))
    forecasts.keep(CONFIG, base, dataset, success())
    (kept,) = (tmp_path / "forecasts").glob("*.json")
    kept.write_text(json.dumps({"seconds": 3}))
    assert forecasts.known(CONFIG, base, dataset) is None
    forecasts.keep(CONFIG, base, dataset, success())
    assert forecasts.known(CONFIG, base, dataset) == FOUND


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
    forecasts = make(Rehearsals(None), available=4 * GB)
    forecasts.keep(CONFIG, base, dataset, success())
    with pytest.raises(Invalid) as refused:
        forecasts.check_fit(CONFIG, base, dataset, 100, lambda: True)
    assert refused.value.code == "does_not_fit"
    assert "batch_size: 4, gradient_accumulation_steps: 4" in refused.value.message


def test_processes_share_the_host_but_not_a_gpu(make: Callable[..., Forecasts], base: Path) -> None:
    many = CONFIG.with_changes(strategy="ddp", processes=4)
    forecasts = make(Rehearsals(None))
    assert forecasts.judge(many, FOUND, base).fits is False
    judged = forecasts.judge(many, replace(FOUND, device="cuda", free_bytes=6 * GB), base)
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
    forecasts = make(trainer, available=near)
    for _ in range(2):  # the second is answered from what was kept
        forecasts.check_fit(CONFIG, base, dataset, 100, lambda: True)
    assert trainer.count == 1
    assert trainer.job_file["config"] == CONFIG.model_dump(mode="json")
    assert trainer.job_file["runner"] == "runner"
    assert not Path(trainer.job_file["run_folder"]).exists()
    assert trainer.kills == 1


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
        lambda: forecasts.refuse_hopeless(CONFIG, base),
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
        (TrainerOutcome("failed", "disk_full", "no room"), DiskFull, None),
        (TrainerOutcome("failed", "time_limit", "too long"), Unavailable, "estimate_timeout"),
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
    forecasts = make(Rehearsals(None))
    with pytest.raises(kind) as ended:
        forecasts.keep(CONFIG, base, dataset, outcome)
    assert ended.value.code == (code or outcome.code)
    assert ended.value.faults == outcome.faults
    assert forecasts.known(CONFIG, base, dataset) is None


def test_a_rehearsal_that_would_end_the_run_fails_the_job(
    make: Callable[..., Forecasts], base: Path, dataset: Path
) -> None:
    near = rough_bytes(CONFIG, base, 100)
    trainer = Rehearsals(TrainerOutcome("failed", "device_missing", "no cuda"))
    with pytest.raises(Invalid) as refused:
        make(trainer, available=near).check_fit(CONFIG, base, dataset, 100, lambda: True)
    assert refused.value.code == "device_missing"


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_rehearsal_has_its_time_and_ends_with_its_job(
    make: Callable[..., Forecasts], base: Path, dataset: Path, goes_on: bool
) -> None:
    """And that it did not end by itself fails no job."""
    near = rough_bytes(CONFIG, base, 100)
    trainer = Rehearsals(None)
    seconds = 0.05 if goes_on else 600.0
    asked = iter([True])  # before it is started
    forecasts = make(trainer, available=near, seconds=seconds)
    forecasts.check_fit(CONFIG, base, dataset, 100, lambda: goes_on or next(asked, False))
    assert (trainer.count, trainer.kills) == (1, 1)
    assert forecasts.known(CONFIG, base, dataset) is None


def test_not_to_know_fails_no_job(make: Callable[..., Forecasts], base: Path, dataset: Path) -> None:
    near = rough_bytes(CONFIG, base, 100)
    trainer = Rehearsals(TrainerOutcome("crashed", "trainer_failed", "by SIGSEGV"))
    make(trainer, available=near).check_fit(CONFIG, base, dataset, 100, lambda: True)
    assert trainer.count == 1


def test_one_at_a_time(make: Callable[..., Forecasts], base: Path, dataset: Path) -> None:
    near = rough_bytes(CONFIG, base, 100)
    found = success(replace(FOUND, peak_memory_bytes=near))
    slow, next_one = Rehearsals(None), Rehearsals(found)

    def check(trainer: Rehearsals, seed: int) -> threading.Thread:
        config = CONFIG.with_changes(seed=seed)
        asked = (config, base, dataset, 100, lambda: True)
        thread = threading.Thread(target=make(trainer, available=near).check_fit, args=asked)
        thread.start()
        return thread

    first = check(slow, 1)
    assert slow.started.wait(5)
    second = check(next_one, 2)
    second.join(0.2)
    assert second.is_alive()
    assert not next_one.started.is_set()
    slow.end(found)
    for thread in (first, second):
        thread.join(5)
        assert not thread.is_alive()
    assert next_one.count == 1


def test_the_oldest_forecasts_go(
    make: Callable[..., Forecasts], base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.core.services.jobs.forecasting.MOST_KEPT", 2)
    forecasts = make(Rehearsals(None))
    for seed in range(4):
        forecasts.keep(CONFIG.with_changes(seed=seed), base, dataset, success())
    assert len(list((tmp_path / "forecasts").glob("*.json"))) == 2
    assert forecasts.known(CONFIG.with_changes(seed=3), base, dataset) == FOUND
