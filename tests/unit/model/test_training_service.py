"""The foreground command's loop, over services that do as they are told."""

from types import SimpleNamespace
from typing import Any

from flask import Flask

from app.core.entities.jobs import JobState
from app.core.entities.training_config import TrainingConfig
from app.model import training_service


class LostJob:
    """A job whose claim was lost: nobody can claim it until the leases have been looked at twice."""

    def __init__(self) -> None:
        self.looks = 0

    def submit(self, principal: None, overrides: dict[str, Any]) -> SimpleNamespace:
        return self.get(None, "job")

    def get(self, principal: None, job_id: str) -> SimpleNamespace:
        return SimpleNamespace(id="job", state=JobState.FAILED if self.looks == 2 else JobState.RUNNING)

    def run_next(self, owner: str, job_id: str, on_event: Any) -> bool:
        return False

    def watch_leases(self) -> None:
        self.looks += 1


def test_a_claim_that_was_lost_is_found_out_without_a_worker(monkeypatch: Any) -> None:
    monkeypatch.setattr(training_service, "LOST_SECONDS", 0.0)
    job = LostJob()
    app = Flask("test")
    app.extensions["services"] = SimpleNamespace(training=job, execution=job)
    assert training_service.train(app, TrainingConfig()).state is JobState.FAILED
    assert job.looks == 2
