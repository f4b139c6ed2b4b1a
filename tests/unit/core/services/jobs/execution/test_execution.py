import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.core.entities.datasets import Conversation
from app.core.entities.forecasts import Forecast
from app.core.entities.jobs import JobEvent, JobState, Lease
from app.core.entities.limits import ProjectLimits
from app.core.errors import Conflict, StaleAttempt, Unavailable
from app.core.interfaces.operations import TrainerHandle, TrainerOutcome
from app.core.services.jobs import tracking
from app.core.services.jobs.heartbeat import Heartbeat
from app.repositories.jobs import SqlJobRepository
from app.utils.clock import boottime
from tests.unit.core.services.jobs.execution.conftest import (
    LEASE,
    PROJECT,
    FakeTokenizer,
    House,
    conversation,
    metrics_event,
)

Background = Callable[..., threading.Thread]


def test_nothing_waits(house: House) -> None:
    assert house.execution.run_next("me") is False


def test_a_sound_job_is_queued_and_then_trained(house: House) -> None:
    job_id = house.submit(JobState.VALIDATING_FILES)
    assert house.execution.run_next("me") is True
    assert house.job(job_id).state is JobState.QUEUED
    house.trainer.end()
    assert house.execution.run_next("me") is True
    assert house.job(job_id).state is JobState.SUCCEEDED
    assert house.execution.run_next("me") is False


def test_every_faulty_row_is_named(house: House) -> None:
    asks = Conversation(3, [{"role": "user", "content": "?"}])
    house.datasets.train = [conversation(1), conversation(2, answer=""), asks]
    job_id = house.submit(JobState.VALIDATING_FILES)
    house.execution.run_next("me")
    error = house.job(job_id).error
    assert house.job(job_id).state is JobState.FAILED
    assert error is not None
    assert error.code == "invalid_data"
    assert [(fault.where, fault.code) for fault in error.faults] == [
        ("row 2", "no_trained_token"),
        ("row 3", "no_answer"),
    ]


def test_an_answer_beyond_max_length_is_a_fault(house: House) -> None:
    house.datasets.train = [
        Conversation(1, [{"role": "user", "content": "?" * 40}, *conversation(1).messages[1:]])
    ]
    job_id = house.submit(JobState.VALIDATING_FILES, max_length=16)
    house.execution.run_next("me")
    error = house.job(job_id).error
    assert error is not None
    assert "16 tokens" in error.faults[0].message


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("sft", {"row 2": "is a preference pair", "row 3": "is a plain text"}),
        ("dpo", {"row 1": "is a conversation", "row 3": "is a plain text"}),
        ("pretrain", {"row 2": "is a preference pair"}),
    ],
)
def test_a_row_of_another_shape_is_a_fault(house: House, objective: str, expected: dict[str, str]) -> None:
    pair = replace(conversation(2), rejected={"role": "assistant", "content": "no"})
    house.datasets.train = [conversation(1), pair, Conversation(3, [], text="Once.")]
    job_id = house.submit(JobState.VALIDATING_FILES, objective=objective)
    house.execution.run_next("me")
    error = house.job(job_id).error
    assert error is not None
    assert {fault.where: fault.message.partition(",")[0] for fault in error.faults} == expected
    assert {fault.code for fault in error.faults} == {"wrong_shape"}
    assert all(f"the objective {objective} trains on" in fault.message for fault in error.faults)


def test_a_split_without_training_rows_is_a_fault(house: House) -> None:
    house.datasets.train = []
    job_id = house.submit(JobState.VALIDATING_FILES)
    house.execution.run_next("me")
    error = house.job(job_id).error
    assert error is not None
    assert error.faults[0].code == "no_training_rows"


def test_a_tracker_that_the_worker_lacks_fails_the_job(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "is_installed", lambda name: name != "wandb")
    job_id = house.submit(JobState.VALIDATING_FILES, report_to=["tensorboard", "wandb"])
    house.execution.run_next("me")
    error = house.job(job_id).error
    assert error is not None
    assert (error.code, error.message) == ("tracker_not_installed", "report_to names what is not installed: wandb")


def test_a_missing_base_model_fails_the_job(house: House) -> None:
    house.bases.missing = True
    job_id = house.submit(JobState.VALIDATING_FILES)
    house.execution.run_next("me")
    error = house.job(job_id).error
    assert error is not None
    assert error.code == "base_model_missing"


@pytest.mark.parametrize("state", [JobState.VALIDATING_FILES, JobState.QUEUED])
def test_what_nobody_foresaw_fails_the_job_without_its_words(house: House, state: JobState) -> None:
    house.datasets.fault = RuntimeError("/secret/path")
    job_id = house.submit(state)
    house.execution.run_next("me")
    error = house.job(job_id).error
    assert error is not None
    assert error.code == "internal_error"
    assert "secret" not in error.message


def test_a_file_that_changed_fails_the_job(house: House) -> None:
    house.datasets.fault = Conflict("the file has changed", code="dataset_changed")
    job_id = house.submit(JobState.VALIDATING_FILES)
    house.execution.run_next("me")
    error = house.job(job_id).error
    assert error is not None
    assert error.code == "dataset_changed"


FORECAST = Forecast(2 * 10**9, 60.0, 9, 100, 50, 10**6, 10**9, 10**6, 1000)


def test_a_job_that_cannot_fit_fails_before_it_is_queued(house: House) -> None:
    house.available = 10**9  # the rough figure is near it, so that it is measured
    house.rehearsals.end(TrainerOutcome("succeeded", result={"forecast": asdict(FORECAST)}))
    job_id = house.submit(JobState.VALIDATING_FILES)
    house.execution.run_next("me")
    error = house.job(job_id).error
    assert house.job(job_id).state is JobState.FAILED
    assert error is not None
    assert error.code == "does_not_fit"
    assert house.rehearsals.job_file["config"]["experiment_name"] == "support"


def test_a_trainer_is_told_what_was_forecast(house: House) -> None:
    house.available = 10**9
    fits = replace(FORECAST, peak_memory_bytes=10**9)
    house.rehearsals.end(TrainerOutcome("succeeded", result={"forecast": asdict(fits)}))
    house.trainer.end()
    house.submit(JobState.VALIDATING_FILES)
    for _ in range(2):
        house.execution.run_next("me")
    assert house.trainer.job_file["forecast"] == asdict(fits)


def test_a_job_of_which_nothing_is_known_is_not_kept_waiting(house: House) -> None:
    house.trainer.end()
    house.submit(JobState.VALIDATING_FILES)
    for _ in range(2):
        house.execution.run_next("me")
    assert not house.rehearsals.started.is_set()
    assert house.trainer.job_file["forecast"] is None


def test_what_a_run_leaves(house: House) -> None:
    job_id = house.submit(model_name="assistant")
    house.trainer.say(metrics_event(1, loss=2.0, eval_loss=3.0), metrics_event(2, loss=1.0, eval_loss=None))
    house.trainer.end()
    heard: list[JobEvent] = []
    house.execution.run_next("me", job_id, heard.append)
    job = house.job(job_id)
    assert job.run_folder is not None
    assert job.run_folder.startswith("support_")
    config = yaml.safe_load((house.results / job.run_folder / "config.yaml").read_text())
    assert config == dict(job.config)
    assert house.trainer.job_file["run_folder"] == str(house.results / job.run_folder)
    assert house.trainer.job_file["attempt"] == 1
    assert (job.progress.step, job.progress.loss, job.progress.eval_loss) == (2, 1.0, 3.0)
    assert [event.seq for event in heard] == [1, 2]
    assert len(house.jobs.events(PROJECT, job_id)) == 2
    version = house.versions.find(PROJECT, "assistant")
    assert version is not None
    assert (version.id, version.number, version.job_id) == (job.model_version_id, 1, job_id)
    assert house.artifacts.kept == {version.artifacts}
    assert job.result == {"train_loss": 0.5}
    assert job.made == ["assistant:1"]


def test_two_runs_never_share_a_folder(house: House) -> None:
    house.trainer.end()
    folders = set()
    for _ in range(3):
        job_id = house.submit()
        house.execution.run_next("me", job_id)
        folders.add(house.job(job_id).run_folder)
    assert len(folders) == 3


def test_only_the_foreground_chooses_paths(house: House, tmp_path: Path) -> None:
    house.trainer.end()
    theirs = house.submit(output_dir=str(tmp_path / "chosen"))
    house.execution.run_next("me", theirs)
    assert not (tmp_path / "chosen").exists()
    for _ in range(2):  # the same folder again is no fault
        ours = house.submit(created_by=None, output_dir=str(tmp_path / "chosen"))
        house.execution.run_next("me", ours)
        assert house.job(ours).state is JobState.SUCCEEDED
        assert house.job(ours).run_folder == str(tmp_path / "chosen")
    assert house.datasets.trusted == [False, True, True]


@pytest.mark.parametrize("code", ["nan_loss", "out_of_memory"])
def test_a_run_that_fails_says_why(house: House, code: str) -> None:
    house.trainer.end(TrainerOutcome("failed", code, "it went wrong"))
    job_id = house.submit()
    house.execution.run_next("me")
    job = house.job(job_id)
    assert job.error is not None
    assert (job.state, job.error.code) == (JobState.FAILED, code)
    assert house.versions.kept == []


def test_cancel_stops_the_trainer(house: House, in_background: Background) -> None:
    job_id = house.submit()
    thread = in_background(house.execution.run_next, "me")
    assert house.trainer.started.wait(5)
    house.jobs.request_cancel(PROJECT, job_id)
    thread.join(5)
    assert house.job(job_id).state is JobState.CANCELLED
    assert house.trainer.stops == 1


def test_a_trainer_that_does_not_listen_is_killed(
    house: House, in_background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.core.services.jobs.attempt.CANCEL_SECONDS", 0.1)
    house.trainer.deaf = True
    job_id = house.submit()
    thread = in_background(house.execution.run_next, "me")
    assert house.trainer.started.wait(5)
    house.jobs.request_cancel(PROJECT, job_id)
    thread.join(5)
    assert house.job(job_id).state is JobState.CANCELLED
    assert house.trainer.kills


def test_a_drained_worker_gives_its_job_back(house: House, in_background: Background) -> None:
    job_id = house.submit()
    thread = in_background(house.execution.run_next, "me")
    assert house.trainer.started.wait(5)
    house.execution.drain()
    thread.join(5)
    assert house.job(job_id).state is JobState.QUEUED
    assert house.execution.run_next("me") is False


def test_a_worker_drained_while_validating_lets_go(house: House) -> None:
    job_id = house.submit(JobState.VALIDATING_FILES)
    encoded = house.bases.tokenizer

    def drain_first(name: str) -> object:
        house.execution.drain()
        return encoded(name)

    house.bases.tokenizer = drain_first  # type: ignore[assignment,method-assign]
    house.execution.run_next("me")
    assert house.job(job_id).state is JobState.VALIDATING_FILES
    assert house.jobs.leases() == []


def test_a_stale_attempt_kills_its_trainer_and_says_nothing(house: House, in_background: Background) -> None:
    job_id = house.submit()
    thread = in_background(house.execution.run_next, "me")
    assert house.trainer.started.wait(5)
    lease = house.jobs.leases()[0]
    while house.jobs.release_lost(lease, 2) is None:
        lease = house.jobs.leases()[0]
    thread.join(5)
    assert house.trainer.kills
    assert house.job(job_id).state is JobState.QUEUED


def test_the_deadline_is_read_before_the_row_is_written(house: House, in_background: Background) -> None:
    written: list[tuple[int, float]] = []  # how many deadlines the trainer knew, and when it was

    class Watched(SqlJobRepository):
        def renew(self, job_id: str, fence: int) -> bool:
            written.append((len(house.trainer.deadlines), boottime()))
            time.sleep(0.05)
            return super().renew(job_id, fence)

    jobs = Watched(house.database)
    house.jobs = jobs
    house.submit()
    thread = in_background(house.worker(jobs).run_next, "me")
    assert house.trainer.started.wait(5)
    while len(house.trainer.deadlines) < 6:
        assert not house.trainer.wait(0.01)
    house.trainer.end()
    thread.join(5)
    deadlines = house.trainer.deadlines
    pairs = [(deadlines[known], at) for known, at in written if known < len(deadlines)]
    assert len(pairs) >= 4
    assert all(deadline <= at + LEASE for deadline, at in pairs)


def test_a_claim_that_took_longer_than_its_lease_starts_no_doomed_trainer(house: House) -> None:
    """As when somebody else holds the database: the row is fresh, and the time of reading the clock is not."""
    house.submit()
    claim = house.jobs.claim("me", LEASE)
    assert claim is not None
    with Heartbeat(house.jobs, claim, boottime() - LEASE, LEASE / 3) as heartbeat:
        assert heartbeat.deadline > boottime()
        assert not heartbeat.lost


class Outage(SqlJobRepository):
    """Its database is away while ``down`` is set."""

    down = False
    refused = 0

    def renew(self, job_id: str, fence: int) -> bool:
        self._check()
        return super().renew(job_id, fence)

    def ingest(self, *arguments: object) -> None:
        self._check()
        super().ingest(*arguments)  # type: ignore[arg-type]

    def _check(self) -> None:
        if self.down:
            self.refused += 1
            raise Unavailable("the database does not answer")


def test_a_short_outage_of_the_database_kills_no_run(house: House, in_background: Background) -> None:
    jobs = Outage(house.database)
    house.jobs = jobs
    job_id = house.submit()
    thread = in_background(house.worker(jobs, lease_seconds=30).run_next, "me")
    assert house.trainer.started.wait(5)
    jobs.down = True
    house.trainer.say(metrics_event(1, loss=1.0))
    while jobs.refused < 3:
        assert not house.trainer.wait(0.01)
    jobs.down = False
    house.trainer.end()
    thread.join(5)
    assert house.job(job_id).state is JobState.SUCCEEDED
    assert len(house.jobs.events(PROJECT, job_id)) == 1


def test_an_outage_longer_than_the_lease_ends_the_trainer(house: House, in_background: Background) -> None:
    jobs = Outage(house.database)
    house.jobs = jobs
    job_id = house.submit()
    thread = in_background(house.worker(jobs, lease_seconds=0.6).run_next, "me")
    assert house.trainer.started.wait(5)
    jobs.down = True
    thread.join(5)
    assert house.trainer.kills
    assert house.job(job_id).state is JobState.RUNNING  # until a reaper finds it


def test_a_lease_that_ran_out_is_not_the_jobs_fault(house: House) -> None:
    job_id = house.submit()
    house.trainer.end(TrainerOutcome("crashed", "lease_ended", "the lease ran out"))
    house.execution.run_next("me")
    assert house.job(job_id).state is JobState.QUEUED
    house.execution.run_next("me")
    error = house.job(job_id).error
    assert error is not None
    assert error.code == "poisoned"


def test_a_job_that_kills_its_process_again_and_again_is_poisoned(house: House) -> None:
    job_id = house.submit()
    house.trainer.end(TrainerOutcome("crashed", "trainer_failed", "it ended by SIGSEGV"))
    house.execution.run_next("me")
    assert house.job(job_id).state is JobState.QUEUED
    house.execution.run_next("me")
    error = house.job(job_id).error
    assert error is not None
    assert (error.code, "by SIGSEGV" in error.message) == ("poisoned", True)


def test_a_crash_in_the_foreground_is_the_end(house: House) -> None:
    job_id = house.submit(created_by=None)
    house.trainer.end(TrainerOutcome("crashed", "trainer_failed", "it ended by SIGSEGV"))
    house.execution.run_next("me", job_id)
    error = house.job(job_id).error
    assert error is not None
    assert error.code == "trainer_failed"


def test_a_trainer_that_the_system_ended_for_want_of_memory_is_not_started_again(house: House) -> None:
    job_id = house.submit()
    house.trainer.say(metrics_event(1, memory_bytes=3e9))
    house.trainer.end(TrainerOutcome("crashed", "out_of_memory", "no room"))
    house.execution.run_next("me")
    job = house.job(job_id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.message.startswith("no room: it had 3.0 GB, and there was no more; ")


def test_a_pause_stops_the_trainer_and_waits_for_it(
    house: House, in_background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.core.services.jobs.attempt.CANCEL_SECONDS", 0.0)
    house.trainer.deaf = True  # busy with a long step
    job_id = house.submit()
    thread = in_background(house.execution.run_next, "me")
    assert house.trainer.started.wait(5)
    house.jobs.request_pause(PROJECT, job_id)
    assert house.trainer.told.wait(5)
    assert house.job(job_id).state is JobState.PAUSING
    assert not house.trainer.kills
    house.trainer.end(TrainerOutcome("stopped"))
    thread.join(5)
    assert house.job(job_id).state is JobState.PAUSED
    assert house.job(job_id).lost == 0


def test_a_job_that_pauses_can_still_be_cancelled(
    house: House, in_background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.core.services.jobs.attempt.CANCEL_SECONDS", 0.1)
    house.trainer.deaf = True
    job_id = house.submit()
    thread = in_background(house.execution.run_next, "me")
    assert house.trainer.started.wait(5)
    house.jobs.request_pause(PROJECT, job_id)
    assert house.trainer.told.wait(5)
    house.jobs.request_cancel(PROJECT, job_id)
    thread.join(5)
    assert house.job(job_id).state is JobState.CANCELLED
    assert house.trainer.kills


def test_a_job_that_ends_before_it_hears_of_the_pause_has_succeeded(
    house: House, in_background: Background
) -> None:
    house.trainer.deaf = True
    job_id = house.submit()
    thread = in_background(house.execution.run_next, "me")
    assert house.trainer.started.wait(5)
    house.jobs.request_pause(PROJECT, job_id)
    assert house.trainer.told.wait(5)
    house.trainer.end()
    thread.join(5)
    assert house.job(job_id).state is JobState.SUCCEEDED


def test_the_gpus_of_a_slot_reach_its_trainer(house: House) -> None:
    house.trainer.end()
    for gpus in ("0,1", None):
        house.submit()
        house.execution.run_next("me", gpus=gpus)
        assert house.trainer.job_file["gpus"] == gpus


def test_a_spare_trainer_has_what_the_job_will_have_and_a_drained_worker_starts_none(house: House) -> None:
    house.execution.prepare("0,1")
    assert house.trainer.spare == (1, "0,1")
    house.execution.dismiss()
    assert house.trainer.spare is None
    house.execution.drain()
    house.execution.prepare("0,1")
    assert house.trainer.spare is None


def test_a_database_that_is_away_while_a_worker_drains_fails_no_job(house: House) -> None:
    class Away(SqlJobRepository):
        refused = False

        def leases(self) -> Sequence[Lease]:
            if not self.refused:
                self.refused = True
                raise Unavailable("the database does not answer")
            return super().leases()

    jobs = Away(house.database)
    house.jobs = jobs
    job_id = house.submit(JobState.VALIDATING_FILES)
    worker = house.worker(jobs)

    def drain_first(name: str) -> FakeTokenizer:
        worker.drain()
        return FakeTokenizer()

    house.bases.tokenizer = drain_first  # type: ignore[method-assign]
    worker.run_next("me")
    assert house.job(job_id).state is JobState.VALIDATING_FILES
    assert house.worker(jobs).run_next("another", job_id)


class AwayAtFirst(SqlJobRepository):
    """Whoever wants to write an event first is not answered."""

    refused = False

    def ingest(self, *arguments: object, **options: object) -> None:  # type: ignore[override]
        if not self.refused:
            self.refused = True
            raise Unavailable("the database does not answer")
        super().ingest(*arguments, **options)  # type: ignore[arg-type]


def test_an_outage_while_a_job_is_checked_does_not_fail_it(house: House) -> None:
    jobs = AwayAtFirst(house.database)
    house.jobs = jobs
    job_id = house.submit(JobState.VALIDATING_FILES)
    house.worker(jobs, lease_seconds=30).run_next("me")
    assert jobs.refused
    assert house.job(job_id).state is JobState.QUEUED
    assert "token_ledger" in jobs.events(PROJECT, job_id)[0].data


class LostAnswer(SqlJobRepository):
    """The commit of ``succeed`` reaches the database, its answer does not reach us."""

    def succeed(self, *arguments: object) -> object:  # type: ignore[override]
        super().succeed(*arguments)  # type: ignore[arg-type]
        raise Unavailable("the database does not answer")


def test_a_success_whose_answer_was_lost_keeps_its_artifacts(house: House) -> None:
    jobs = LostAnswer(house.database)
    house.jobs = jobs
    job_id = house.submit()
    house.trainer.end()
    house.worker(jobs).run_next("me")
    job = house.job(job_id)
    assert job.state is JobState.SUCCEEDED
    assert house.artifacts.kept == {job.model_version_id}


class Refused(SqlJobRepository):
    refuse = True

    def succeed(self, *arguments: object) -> object:  # type: ignore[override]
        if self.refuse:
            raise StaleAttempt("too late")
        return super().succeed(*arguments)  # type: ignore[arg-type]


def test_an_attempt_that_comes_too_late_takes_its_artifacts_back(house: House) -> None:
    jobs = Refused(house.database)
    house.jobs = jobs
    house.submit()
    house.trainer.end()
    house.worker(jobs).run_next("me")
    assert house.artifacts.kept == set()


def test_what_a_killed_worker_published_is_removed_by_the_next_attempt(house: House) -> None:
    jobs = Refused(house.database)
    house.jobs = jobs
    job_id = house.submit()
    house.trainer.end()
    keep = house.artifacts.discard
    house.artifacts.discard = lambda artifacts: None  # type: ignore[method-assign]
    house.worker(jobs).run_next("me")
    house.artifacts.discard = keep  # type: ignore[method-assign]
    assert len(house.artifacts.kept) == 1
    jobs.refuse = False
    jobs.release_lost(jobs.leases()[0], 2)
    house.worker(jobs).run_next("me")
    assert house.artifacts.kept == {house.job(job_id).model_version_id}


def test_what_finds_no_room_in_the_project_is_kept_in_its_run_folder(house: House) -> None:
    job_id = house.submit()
    house.trainer.end()
    house.worker(limits=ProjectLimits(versions=0)).run_next("me")
    job = house.job(job_id)
    assert (job.state, job.model_version_id) == (JobState.FAILED, None)
    assert job.error is not None
    assert job.error.code == "quota_exceeded"
    assert "0 of the 0 published versions" in job.error.message
    assert "stays in the run's folder" in job.error.message
    assert house.artifacts.kept == set()
    assert job.run_folder is not None
    assert (house.results / job.run_folder).is_dir()


def test_a_version_says_its_bytes(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    start = house.trainer.start

    def write(job_file: Mapping[str, Any], folder: Path, deadline: float) -> TrainerHandle:
        artifacts = Path(job_file["run_folder"]) / "artifacts" / "tokenizer"
        artifacts.mkdir(parents=True)
        (artifacts / "tokenizer.json").write_bytes(b"12345")
        return start(job_file, folder, deadline)

    monkeypatch.setattr(house.trainer, "start", write)
    house.submit()
    house.trainer.end()
    house.execution.run_next("me")
    assert [version.size for version in house.versions.kept] == [5]


def test_ctrl_c_in_the_foreground_cancels(house: House) -> None:
    job_id = house.submit(created_by=None)
    house.trainer.say(metrics_event(1))

    def interrupt(_: JobEvent) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        house.execution.run_next("me", job_id, interrupt)
    assert house.job(job_id).state is JobState.CANCELLED
    assert house.trainer.kills


def test_a_progress_bar_that_fails_does_not_end_the_job(house: House) -> None:
    job_id = house.submit(created_by=None)
    house.trainer.say(metrics_event(1, loss=1.0), metrics_event(2, loss=0.5))
    house.trainer.end()
    heard = []

    def fail(event: JobEvent) -> None:
        heard.append(event.seq)
        raise BrokenPipeError

    house.execution.run_next("me", job_id, on_event=fail)
    assert house.job(job_id).state is JobState.SUCCEEDED
    assert heard == [1]
    assert [event.seq for event in house.jobs.events(PROJECT, job_id)] == [1, 2]


def test_what_an_outage_left_is_ingested_batch_by_batch(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = house.submit()
    batches = [[metrics_event(seq) for seq in range(first, first + 3)] for first in (1, 4, 7)]
    monkeypatch.setattr(house.trainer, "new_events", lambda: batches.pop(0) if batches else [])
    house.trainer.end()
    house.execution.run_next("me", job_id)
    assert [event.seq for event in house.jobs.events(PROJECT, job_id)] == list(range(1, 10))
    assert house.job(job_id).progress.step == 9


def test_what_an_earlier_attempt_could_not_hand_in_is_taken_up(house: House) -> None:
    job_id = house.submit()
    claim = house.jobs.claim("lost", LEASE)
    assert claim is not None
    events = [metrics_event(seq) for seq in (1, 2, 3)]
    house.jobs.ingest(job_id, claim.fence, events[:1], None)
    house.jobs.give_back(job_id, claim.fence)
    house.trainer.left[claim.fence] = events
    house.trainer.say(metrics_event(1, loss=0.5))
    house.trainer.end()
    house.execution.run_next("me")
    kept = house.jobs.events(PROJECT, job_id)
    assert [(event.seq, event.data["step"]) for event in kept] == [(1, 1), (2, 2), (3, 3), (4, 1)]
    assert house.job(job_id).progress.step == 1  # of the attempt that is under way


class TestLeases:
    def test_a_silent_owner_loses_the_job_after_a_lease_and_a_margin(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = [1000.0]
        monkeypatch.setattr("app.core.services.jobs.heartbeat.time.monotonic", lambda: now[0])
        job_id = house.submit()
        claim = house.jobs.claim("other", 10.0)
        assert claim is not None
        house.execution.watch_leases()
        now[0] += 9
        house.jobs.renew(job_id, claim.fence)
        house.execution.watch_leases()
        now[0] += 11.4
        house.execution.watch_leases()
        assert house.job(job_id).state is JobState.RUNNING
        now[0] += 0.2
        house.execution.watch_leases()
        assert house.job(job_id).state is JobState.QUEUED

    def test_a_job_that_loses_its_worker_again_and_again_is_poisoned(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = [0.0]
        monkeypatch.setattr("app.core.services.jobs.heartbeat.time.monotonic", lambda: now[0])
        job_id = house.submit()
        for _ in range(2):
            assert house.jobs.claim("other", 10.0) is not None
            house.execution.watch_leases()
            now[0] += 12
            house.execution.watch_leases()
        error = house.job(job_id).error
        assert error is not None
        assert error.code == "poisoned"


def test_a_trainer_is_told_which_version_to_start_from(house: House) -> None:
    house.trainer.end()
    first = house.submit()
    house.execution.run_next("me")
    assert house.trainer.job_file["start_from"] is None
    second = house.submit(JobState.VALIDATING_FILES, from_version="support:1")
    while house.execution.run_next("me"):
        pass
    assert house.job(second).state is JobState.SUCCEEDED
    assert house.trainer.job_file["start_from"] == f"/registry/{house.job(first).model_version_id}"
    published = house.versions.find(PROJECT, "support", 2)
    assert published is not None
    assert published.config["from_version"] == "support:1"


def test_a_version_whose_artifacts_are_gone_fails_the_job_before_its_turn(house: House) -> None:
    house.trainer.end()
    house.submit()
    house.execution.run_next("me")
    house.artifacts.kept.clear()
    job_id = house.submit(JobState.VALIDATING_FILES, from_version="support:1")
    house.execution.run_next("me")
    error = house.job(job_id).error
    assert error is not None
    assert error.code == "artifacts_missing"


def test_a_version_knows_the_weights_that_it_was_trained_over(house: House) -> None:
    """And nobody trains it on over others."""
    house.trainer.end()
    house.submit()
    house.execution.run_next("me")
    published = house.versions.find(PROJECT, "support", 1)
    assert published is not None
    assert published.base_digest == house.bases.weights
    house.bases.weights = "other weights"
    job_id = house.submit(JobState.VALIDATING_FILES, from_version="support:1")
    house.execution.run_next("me")
    error = house.job(job_id).error
    assert error is not None
    assert error.code == "base_mismatch"
