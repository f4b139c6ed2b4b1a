"""A kind of job that only tests have: it says a word so many times, and comes to that word in capitals."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.core.entities.identity import Principal
from app.core.entities.jobs import FineTuningJob
from app.core.entities.trainer import Placement
from app.core.errors import AppError, Fault, Invalid
from app.core.interfaces.components import JobRunner, Reporter, TrainingStopped
from app.core.interfaces.job_kinds import Draft, Finished, JobKind, Task, Watch

STEP_SECONDS = 0.05


class ShoutRunner(JobRunner):
    """In the child process."""

    def carry_out(self, job_file: Mapping[str, Any], placement: Placement, report: Reporter) -> Mapping[str, Any]:
        """Say the word; leave it in a file."""
        for step in range(1, job_file["times"] + 1):
            if report.should_stop():
                raise TrainingStopped
            report.metrics(step, job_file["times"], {})
            time.sleep(STEP_SECONDS)
        if job_file["word"] == "bad":
            raise AppError("that word is not said", code="bad_word")
        (Path(job_file["run_folder"]) / "said.txt").write_text(job_file["word"])
        return {"shouted": job_file["word"].upper()}


class ShoutKind(JobKind):
    """In the web process and the worker. ``taken_up`` counts what was laid down, and ``ended`` what stayed."""

    name = "shout"
    id_prefix = "shout"
    runner = "tests.integration.jobs.shouting:ShoutRunner"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.taken_up: list[tuple[str, int]] = []
        self.ended: list[tuple[str, int]] = []

    def check(self, principal: Principal | None, request: Mapping[str, Any]) -> Draft:
        if not isinstance(request.get("word"), str):
            raise Invalid("no word", faults=[Fault("word", "missing", "give a word to shout")])
        return Draft(name=request["word"], config={"word": request["word"], "times": request.get("times", 2)})

    def begin(self, job: FineTuningJob, attempt: int, watch: Watch) -> Task:
        folder = self.folder / job.id
        folder.mkdir(parents=True, exist_ok=True)
        return Task(dict(job.config), folder, str(folder))

    @contextmanager
    def taking_up(
        self, job: FineTuningJob, attempt: int, result: Mapping[str, Any], folder: Path
    ) -> Iterator[Finished]:
        self.taken_up.append((job.id, attempt))
        yield Finished({**result, "file": (folder / "said.txt").read_text()})
        self.ended.append((job.id, attempt))
