"""``pipeline:`` in a training config: the rows are processed as the job's first stage, in a process of its own."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.core.entities.datasets import Conversation
from app.core.entities.jobs import JobState
from app.core.entities.trainer import ALONE
from app.core.errors import AppError
from app.core.interfaces.components import Reporter
from app.core.interfaces.operations import TrainerHandle, TrainerOutcome
from app.implementations.data.cuts import write_split
from app.implementations.kinds.process import PipelineRunner
from tests.unit.core.services.jobs.execution.conftest import FakeTrainer, House, conversation

PIPELINE = {"steps": ["clean", "split"], "splitting": {"validation": 0.0, "test": 0.0}}


class Silent(Reporter):
    def message(self, text: str, level: str = "info") -> None: ...

    def metrics(self, step: int, total_steps: int, figures: Mapping[str, float | None]) -> None: ...

    def should_stop(self) -> bool:
        return False


class Pipelines(FakeTrainer):
    """Does the work where it is started."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def start(self, job_file: Mapping[str, Any], attempt_folder: Path, deadline: float) -> TrainerHandle:
        self.count += 1
        assert job_file["runner"] == PipelineRunner.path
        super().start(job_file, attempt_folder, deadline)
        try:
            self.end(TrainerOutcome("succeeded", result=PipelineRunner().carry_out(job_file, ALONE, Silent())))
        except AppError as error:
            self.end(TrainerOutcome("failed", error.code, error.message, faults=tuple(error.faults)))
        return self


def labelled(row: int, label: str) -> Conversation:
    return replace(conversation(row, f"answer {row}"), label=label)


def cut(house: House, train: list[Conversation], test: list[Conversation]) -> None:
    """The file's own cut, which the pipeline reads whole."""
    for split, rows in (("train", train), ("validation", []), ("test", test)):
        write_split(house.datasets.folder, split, rows)


@pytest.fixture
def with_pipeline(house: House) -> House:
    cut(house, [labelled(2, "b"), labelled(1, "a"), labelled(3, "a")], [replace(labelled(1, "a"), row=4)])
    pipelines = Pipelines()
    again = House(house.results, house.datasets, house.database, pipelines=pipelines)
    again.trainer.end()
    return again


def carry(house: House) -> None:
    while house.execution.run_next("me"):
        pass


def test_the_report_and_the_label_counts_land_in_the_run_folder(with_pipeline: House) -> None:
    house = with_pipeline
    job_id = house.submit(JobState.VALIDATING_FILES, pipeline=PIPELINE)
    carry(house)
    job = house.job(job_id)
    assert (job.state, job.error) == (JobState.SUCCEEDED, None)
    assert job.run_folder is not None
    report = json.loads((house.results / job.run_folder / "pipeline_report.json").read_text())
    assert report["rows"] == 3  # the fourth says what the first does
    assert report["splits"]["train"] == {"rows": 3, "labels": {"a": 2, "b": 1}}
    assert report["splits"]["test"] == {"rows": 0, "labels": {}}
    assert [step["name"] for step in report["steps"]] == ["convert", "clean", "split"]
    said = [event for event in house.jobs.events("default", job_id) if "pipeline" in event.data]
    assert [event.message for event in said] == ["the pipeline leaves 3 rows"]
    assert [row.row for row in house.datasets.train] == [1, 2, 3]  # in the order of their file
    assert house.trainer.job_file["dataset_folder"] == str(house.datasets.folder)
    assert list(house.work.iterdir()) == []


def test_the_same_rows_and_the_same_keys_are_processed_once(with_pipeline: House) -> None:
    house = with_pipeline
    pipelines = house.pipelines
    assert isinstance(pipelines, Pipelines)
    for _ in range(2):
        house.submit(JobState.VALIDATING_FILES, pipeline=PIPELINE)
        carry(house)
    assert pipelines.count == 1
    house.submit(JobState.VALIDATING_FILES, pipeline={**PIPELINE, "seed": 7})
    carry(house)
    assert pipelines.count == 2


def test_a_run_without_a_pipeline_leaves_no_report(house: House) -> None:
    house.trainer.end()
    job_id = house.submit()
    carry(house)
    folder = house.job(job_id).run_folder
    assert folder is not None
    assert not (house.results / folder / "pipeline_report.json").exists()
    assert not house.pipelines.started.is_set()


def test_a_pipeline_that_leaves_no_row_fails_the_job(with_pipeline: House) -> None:
    house = with_pipeline
    cut(house, [], [])
    job_id = house.submit(JobState.VALIDATING_FILES, pipeline=PIPELINE)
    carry(house)
    error = house.job(job_id).error
    assert error is not None
    assert (error.code, error.message) == ("no_rows", "pipeline: the pipeline leaves no row")


def test_a_pipeline_that_crashes_fails_the_job(house: House) -> None:
    cut(house, [labelled(1, "a")], [])
    house.pipelines.end(TrainerOutcome("crashed", "trainer_failed", "it ended by SIGSEGV"))
    job_id = house.submit(JobState.VALIDATING_FILES, pipeline=PIPELINE)
    carry(house)
    error = house.job(job_id).error
    assert error is not None
    assert (error.code, error.message) == ("trainer_failed", "pipeline: it ended by SIGSEGV")


@pytest.mark.parametrize("how", ["cancelled", "drained"])
def test_a_job_is_let_go_in_the_middle_of_its_pipeline(
    house: House, in_background: Callable[..., threading.Thread], how: str
) -> None:
    job_id = house.submit(JobState.VALIDATING_FILES, pipeline=PIPELINE)
    thread = in_background(house.execution.run_next, "me")
    assert house.pipelines.started.wait(5)
    if how == "cancelled":
        house.jobs.request_cancel("default", job_id)
    else:
        house.execution.drain()
    thread.join(5)
    expected = JobState.CANCELLED if how == "cancelled" else JobState.VALIDATING_FILES
    assert house.job(job_id).state is expected
    assert house.pipelines.kills == 1
    assert house.jobs.leases() == []
    assert list(house.work.iterdir()) == []


def test_an_estimate_measures_the_rows_that_the_pipeline_leaves(with_pipeline: House) -> None:
    house = with_pipeline
    job_id = house.submit(JobState.VALIDATING_FILES, kind="estimate", pipeline=PIPELINE)
    assert house.execution.run_next("me", is_light=True)
    assert house.job(job_id).state is JobState.QUEUED
    pipelines = house.pipelines
    assert isinstance(pipelines, Pipelines)
    assert pipelines.count == 1
    assert [row.row for row in house.datasets.train] == [1, 2, 3]
