"""Estimates in the worker: measured in a child process, found again, and forgotten a day after their end."""

import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import pytest

from app.core.entities.forecasts import Forecast
from app.core.entities.jobs import FineTuningJob, JobState
from app.core.errors import AppError, Conflict, Invalid, Unavailable
from app.core.interfaces.operations import TrainerOutcome
from app.core.services.jobs.training import TrainingService
from app.repositories.tables import JobRow
from tests.databases import Repositories
from tests.unit.core.services.jobs.execution.conftest import House, conversation

FOUND = Forecast(2 * 10**9, 60.0, 9, 100, 50, 10**6, 10**9, 10**6, 1000)
MEASURED = TrainerOutcome("succeeded", result={"forecast": asdict(FOUND)})


def estimated(house: House, **config: object) -> FineTuningJob:
    """An estimate, carried by a light slot as far as it goes."""
    job_id = house.submit(JobState.VALIDATING_FILES, kind="estimate", **config)
    while house.execution.run_next("me", is_light=True):
        pass
    return house.job(job_id)


def refusal(job: FineTuningJob) -> AppError:
    with pytest.raises(AppError) as refused:
        TrainingService.estimate_of(job)
    return refused.value


def test_a_child_measures_and_the_row_has_what_it_found(house: House) -> None:
    house.trainer.end(MEASURED)
    job = estimated(house)
    assert (job.state, job.made) == (JobState.SUCCEEDED, [])
    judged = TrainingService.estimate_of(job)
    assert judged is not None
    assert (judged.forecast, judged.available_bytes, judged.fits) == (FOUND, 10**10, True)
    told = house.trainer.job_file
    assert (told["runner"], told["config"]) == ("double-forecast", dict(job.config))
    assert not Path(told["run_folder"]).exists()
    assert house.trainer.kills == 1
    assert not house.rehearsals.started.is_set()


def test_no_heavy_slot_takes_it(house: House) -> None:
    job_id = house.submit(kind="estimate")
    assert house.execution.run_next("me") is False
    assert house.job(job_id).state is JobState.QUEUED


def test_the_same_question_starts_no_child(house: House) -> None:
    house.trainer.end(MEASURED)
    first = estimated(house)
    house.trainer.started.clear()
    again = estimated(house, learning_rate=0.5)
    assert not house.trainer.started.is_set()
    assert again.result == first.result
    estimated(house, batch_size=1)
    assert house.trainer.started.is_set()


def test_a_job_that_trains_is_told_what_was_estimated(house: House) -> None:
    house.trainer.end(MEASURED)
    estimated(house)
    house.submit()
    house.execution.run_next("me")
    assert house.trainer.job_file["forecast"] == asdict(FOUND)


def test_rows_with_faults_are_told_before_anything_is_measured(house: House) -> None:
    house.datasets.train = [conversation(1), conversation(2, "")]
    refused = refusal(estimated(house))
    assert (type(refused), refused.code) == (Invalid, "invalid_data")
    assert [fault.where for fault in refused.faults] == ["row 2"]
    assert not house.trainer.started.is_set()


def test_weights_that_do_not_fit_are_not_loaded_to_see(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    monkeypatch.setattr(house.bases, "folder", lambda name: tmp_path)
    house.available = 900
    assert refusal(estimated(house)).code == "does_not_fit"
    assert not house.trainer.started.is_set()


@pytest.mark.parametrize(
    ("outcome", "kind", "code"),
    [
        (TrainerOutcome("crashed", "out_of_memory", "killed"), Invalid, "does_not_fit"),
        (TrainerOutcome("failed", "out_of_memory", "no more"), Invalid, "does_not_fit"),
        (TrainerOutcome("failed", "device_missing", "no cuda"), Invalid, "device_missing"),
        (TrainerOutcome("failed", "disk_full", "no room"), Unavailable, "disk_full"),
        (TrainerOutcome("failed", "trainer_failed", "a secret"), Unavailable, "estimate_failed"),
        (TrainerOutcome("crashed", "trainer_failed", "by SIGSEGV"), Unavailable, "estimate_failed"),
    ],
)
def test_how_a_child_may_end(house: House, outcome: TrainerOutcome, kind: type[AppError], code: str) -> None:
    house.trainer.end(outcome)
    refused = refusal(estimated(house))
    assert (type(refused), refused.code) == (kind, code)
    assert "secret" not in refused.message


def test_a_base_model_that_is_away_says_nothing_of_the_run(house: House) -> None:
    house.bases.missing = True
    assert isinstance(refusal(estimated(house)), Unavailable)


def test_a_child_has_its_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(house.kinds[1]), "seconds", 0.2)
    refused = refusal(estimated(house))
    assert (type(refused), refused.code, refused.retry_after) == (Unavailable, "estimate_timeout", 10)
    assert house.trainer.kills


def test_it_is_cancelled_as_any_job(house: House, in_background: Callable[..., threading.Thread]) -> None:
    job_id = house.submit(kind="estimate")
    thread = in_background(lambda: house.execution.run_next("me", is_light=True))
    assert house.trainer.started.wait(5)
    assert TrainingService.estimate_of(house.job(job_id)) is None
    house.jobs.request_cancel("default", job_id)
    thread.join(5)
    assert isinstance(refusal(house.job(job_id)), Conflict)


def test_its_row_and_its_files_go_a_day_after_its_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.trainer.end(TrainerOutcome("failed", "trainer_failed", "it broke"))
    old, young = (estimated(house, batch_size=size).id for size in (1, 2))
    trains = house.submit()
    house.jobs.request_cancel("default", trains)
    for ended in (old, trains):
        finished = house.job(ended).finished_at
        assert finished is not None
        Repositories(house.database).change(JobRow, ended, finished_at=finished - timedelta(days=2))
    assert (house.work / old).is_dir()
    house.execution.watch_leases()
    assert house.jobs.get("default", old) is None
    assert not (house.work / old).exists()
    assert (house.work / young).is_dir()
    assert house.job(young).state is JobState.FAILED
    assert house.job(trains).state is JobState.CANCELLED


def test_what_does_not_fit_is_told_with_what_would(house: House) -> None:
    house.available = 10**9
    large = replace(FOUND, token_bytes=10**5, largest_batch_tokens=10**4, resting_bytes=5 * 10**8)
    house.trainer.end(TrainerOutcome("succeeded", result={"forecast": asdict(large)}))
    judged = TrainingService.estimate_of(estimated(house, batch_size=8))
    assert judged is not None
    assert judged.fits is False
    assert judged.suggestion is not None
