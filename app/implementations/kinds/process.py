"""Jobs that make a dataset's next version of one that is there: the data pipeline in a process of its own."""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

from app.core.entities.data_pipeline import PipelineConfig, PipelineResult, pipeline_config
from app.core.entities.datasets import SPLITS, Conversation
from app.core.entities.identity import Principal
from app.core.entities.jobs import FineTuningJob
from app.core.entities.limits import ProjectUse
from app.core.entities.trainer import Placement
from app.core.errors import AppError, Fault, Invalid
from app.core.interfaces.components import DatasetLibrary, JobRunner, Reporter
from app.core.interfaces.job_kinds import Draft, Finished, JobKind, Task, Watch
from app.core.processors.pipeline import run_pipeline
from app.core.services.data.dataset_versions import DatasetVersionService
from app.core.services.jobs.room import DATA_FOLDER, needs_room
from app.implementations.data.cuts import WHOLE, read_split, write_split
from app.implementations.kinds.progress import Progress


class PipelineRunner(JobRunner):
    """Reads rows, does the pipeline's steps, and leaves the rows that they make as a file."""

    path: ClassVar = "app.implementations.kinds.process:PipelineRunner"

    def carry_out(self, job_file: Mapping[str, Any], placement: Placement, report: Reporter) -> Mapping[str, Any]:
        """Return the report of the pipeline: its steps, and rows and labels by split."""
        config = PipelineConfig.model_validate(job_file["pipeline"])
        rows = read_rows(job_file)
        result = run_pipeline(rows, config, keep_changes=0, on_progress=Progress(report).of_step)
        if not result.rows:
            raise Invalid("the pipeline leaves no row", code="no_rows")
        write_split(Path(job_file["run_folder"]), WHOLE, result.rows)
        return _report(result)


class ProcessKind(JobKind):
    """``folder`` holds the files of its jobs."""

    name = "process"
    id_prefix = "process"
    is_light = True
    needs = ProjectUse(storage_bytes=1)
    runner = PipelineRunner.path

    def __init__(
        self, versions: DatasetVersionService, library: DatasetLibrary, defaults: PipelineConfig, folder: Path
    ) -> None:
        self._versions = versions
        self._library = library
        self._defaults = defaults
        self._folder = folder

    def check(self, principal: Principal, request: Mapping[str, Any]) -> Draft:
        """``dataset_id`` names the version, ``config`` is laid over the service's data_pipeline.yaml."""
        faults: list[Fault] = []
        given = request.get("config") or {}
        config = self._defaults
        try:
            defaults = self._defaults.model_dump(mode="json")
            config = pipeline_config({**defaults, **given} if isinstance(given, Mapping) else given)
        except Invalid as error:
            faults += error.faults
        version = None
        try:
            version = self._versions.version(principal, str(request.get("dataset_id") or ""))
        except AppError as error:
            if not faults:
                raise
            faults.append(Fault("dataset_id", error.code, error.message))
        if faults or version is None:
            raise Invalid("the request has faults: nothing was started", faults=faults)
        return Draft(
            name=f"{version.dataset_id}:{version.number}",
            config={"dataset_id": version.reference, "config": config.model_dump(mode="json")},
            dataset_digest=version.digest,
            dataset_id=version.dataset_id,
            dataset_number=version.number,
        )

    def begin(self, job: FineTuningJob, attempt: int, watch: Watch) -> Task:
        source = self._library.folder(job.dataset_digest)
        folder = self._folder / job.id
        folder.mkdir(parents=True, exist_ok=True)
        told = {"rows_folder": str(source), "parts": [WHOLE], "pipeline": job.config["config"]}
        return Task(told, folder, str(folder))

    @contextmanager
    def taking_up(
        self, job: FineTuningJob, attempt: int, result: Mapping[str, Any], folder: Path
    ) -> Iterator[Finished]:
        parent = self._versions.version(job.asker, job.config["dataset_id"])
        with needs_room(DATA_FOLDER), self._library.keeping(read_split(folder, WHOLE)) as kept:
            version = self._versions.derived(job.asker, parent, kept, job.config["config"], _changes(result))
            yield Finished(result, [version])
        shutil.rmtree(folder, ignore_errors=True)


def _changes(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what the version keeps of each step: its counts, not its warnings."""
    return [{key: value for key, value in step.items() if key != "warnings"} for step in result["steps"]]


def read_rows(job_file: Mapping[str, Any]) -> Sequence[Conversation]:
    """Read the rows that a job file names, in the order of their file. Those of a cut forget the cut's splits."""
    folder, parts = Path(job_file["rows_folder"]), job_file["parts"]
    if parts == [WHOLE]:
        return read_split(folder, WHOLE)
    rows = (replace(row, split=None) for part in parts for row in read_split(folder, part))
    return sorted(rows, key=lambda row: row.row)


def _report(result: PipelineResult) -> Mapping[str, Any]:
    steps = [{key: value for key, value in asdict(step).items() if key != "changes"} for step in result.steps]
    by_split = result.splits()
    splits = {
        name: {"rows": len(by_split[name]), "labels": Counter(row.label for row in by_split[name] if row.label)}
        for name in SPLITS
    }
    return {"rows": len(result.rows), "steps": steps, "splits": splits}
