"""Which checkpoint of a run folder is gone on from, and who may."""

import os
from pathlib import Path
from typing import Any

import pytest

from app.core.entities.identity import Principal, Role
from app.core.entities.jobs import JobState
from app.core.errors import Conflict, Invalid
from app.core.services.jobs.resuming import latest_checkpoint, run_to_resume
from app.repositories.tables import JobRow
from app.utils.folders import locked, seal

CLIENT = Principal("user-1", "alice", "default", Role.OPERATOR)
SOUND = {"dataset_path": "data/raw/sound.json"}


def checkpoint(run: Path, job_id: str, step: int, age: int = 0) -> Path:
    """``age`` in seconds."""
    folder = run / "checkpoints" / job_id / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "adapter.safetensors").write_text("weights")
    seal(folder, {"step": step})
    written = folder.stat().st_mtime - age
    os.utime(folder, (written, written))
    return folder


def damage(path: Path) -> None:
    (path / "adapter.safetensors").write_text("WEIGHTS")  # as long as before


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "a-run"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("{}")
    return folder


def test_the_newest_whole_checkpoint(run: Path) -> None:
    paths = [checkpoint(run, "a", step) for step in (9, 10, 11)]
    damage(paths[2])
    (run / "checkpoints/a/.step-00000012.new-1").mkdir()
    assert latest_checkpoint(run / "checkpoints/a") == paths[1]
    assert latest_checkpoint(run / "nowhere") is None


def test_the_job_that_wrote_last_is_gone_on_with_whatever_its_step(run: Path) -> None:
    checkpoint(run, "earlier", 100, age=60)
    later = checkpoint(run, "later", 5)
    found = run_to_resume(run)
    assert (found.job_id, found.checkpoints, found.has_artifacts) == ("later", later.parent, False)
    damage(later)
    assert run_to_resume(run).job_id == "earlier"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(Invalid, match="not a run folder") as refused:
            run_to_resume(folder)
        assert refused.value.code == "not_a_run"


def test_a_run_without_a_whole_checkpoint_is_refused(run: Path) -> None:
    with pytest.raises(Invalid, match="begin anew with --config") as refused:
        run_to_resume(run)
    assert refused.value.code == "no_checkpoint"
    damage(checkpoint(run, "a", 1))
    with pytest.raises(Invalid, match="no whole checkpoint"):
        run_to_resume(run)


# --- the job that goes on ---


@pytest.fixture
def training(services: Any) -> Any:
    return services.training


def in_state(twins: Any, job_id: str, state: JobState) -> None:
    twins.change(JobRow, job_id, state=state.value)


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED, JobState.RUNNING])
def test_a_new_job_takes_over_folder_and_checkpoints(
    training: Any, twins: Any, run: Path, state: JobState
) -> None:
    """RUNNING is what a foreground command that was killed leaves in its row."""
    before = training.submit(Principal.host(), SOUND, foreground=True)
    in_state(twins, before.id, state)
    checkpoint(run, before.id, 7)
    job = training.resume_run(run_to_resume(run), {**SOUND, "num_epochs": 9})

    assert job.id != before.id
    assert (job.run_folder, job.state, job.created_by) == (str(run), JobState.VALIDATING_FILES, None)
    assert job.config["num_epochs"] == 9
    assert twins.jobs.get("default", job.id) == job
    assert latest_checkpoint(run / "checkpoints" / job.id) is not None
    assert run_to_resume(run).job_id == job.id


def test_a_run_of_another_instance_can_be_gone_on_with(training: Any, run: Path) -> None:
    checkpoint(run, "ftjob-unknown", 7)
    assert training.resume_run(run_to_resume(run), SOUND).run_folder == str(run)


def refusal(training: Any, run: Path) -> str:
    with pytest.raises(Conflict) as refused:
        training.resume_run(run_to_resume(run), SOUND)
    return refused.value.code


def test_a_finished_run_is_refused(training: Any, twins: Any, run: Path) -> None:
    before = training.submit(Principal.host(), SOUND, foreground=True)
    checkpoint(run, before.id, 7)
    in_state(twins, before.id, JobState.SUCCEEDED)
    assert refusal(training, run) == "run_is_finished"


def test_artifacts_finish_a_run_that_no_row_tells_of_and_no_other(training: Any, twins: Any, run: Path) -> None:
    checkpoint(run, "ftjob-unknown", 7, age=60)
    (run / "artifacts").mkdir()
    seal(run / "artifacts", {"job_id": "ftjob-unknown"})
    assert refusal(training, run) == "run_is_finished"

    # A job that was killed between its artifacts and its publishing has a row that says so.
    known = training.submit(Principal.host(), SOUND, foreground=True)
    in_state(twins, known.id, JobState.FAILED)
    checkpoint(run, known.id, 8)
    seal(run / "artifacts", {"job_id": known.id})
    assert training.resume_run(run_to_resume(run), SOUND).run_folder == str(run)


def test_a_run_that_is_at_work_is_refused(training: Any, twins: Any, run: Path) -> None:
    checkpoint(run, "ftjob-unknown", 7)
    with locked(run / "checkpoints" / "ftjob-unknown"):
        assert refusal(training, run) == "run_is_live"
    assert twins.job_count() == 0


@pytest.mark.parametrize(
    ("state", "refused"), [(JobState.QUEUED, True), (JobState.RUNNING, True), (JobState.FAILED, False)]
)
def test_a_job_of_the_service_is_its_workers_while_it_lasts(
    training: Any, twins: Any, run: Path, state: JobState, refused: bool
) -> None:
    before = training.submit(CLIENT, SOUND)
    in_state(twins, before.id, state)
    checkpoint(run, before.id, 7)
    if refused:
        assert refusal(training, run) == "run_is_live"
    else:
        assert training.resume_run(run_to_resume(run), SOUND).created_by is None


def test_nothing_is_taken_over_for_a_config_with_faults(training: Any, run: Path) -> None:
    place = checkpoint(run, "ftjob-unknown", 7)
    with pytest.raises(Invalid):
        training.resume_run(run_to_resume(run), {**SOUND, "num_epochs": 0})
    assert place.is_dir()
