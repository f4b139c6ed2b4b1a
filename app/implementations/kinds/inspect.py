"""Jobs that look through a dataset for what is legal and yet suspicious: the checks that take longer."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from app.core.entities.data_pipeline import PipelineConfig
from app.core.entities.identity import Principal
from app.core.entities.jobs import FineTuningJob
from app.core.entities.trainer import Placement
from app.core.errors import AppError, Fault, Invalid
from app.core.interfaces.components import BaseModelStore, DatasetLibrary, JobRunner, Reporter
from app.core.interfaces.job_kinds import Draft, Finished, JobKind, Task, Watch
from app.core.services.data.data_preparation import token_counter
from app.core.services.data.dataset_versions import DatasetVersionService
from app.implementations.data.cuts import WHOLE, read_split
from app.implementations.data.encoder_tokenizer import load_tokenizer
from app.implementations.kinds.progress import Progress


class InspectRunner(JobRunner):
    """Does every check of ``flask data validate``."""

    path: ClassVar = "app.implementations.kinds.inspect:InspectRunner"

    def carry_out(self, job_file: Mapping[str, Any], placement: Placement, report: Reporter) -> Mapping[str, Any]:
        """Return the report and the first warnings of each code."""
        from app.implementations.data.inspection import inspect

        config = PipelineConfig.model_validate(job_file["pipeline"])
        rows = read_split(Path(job_file["rows_folder"]), WHOLE)
        base, length = job_file["base_model_folder"], job_file["max_length"]
        tokens = None if base is None else token_counter(load_tokenizer(Path(base)), length)
        found = inspect(rows, config, tokens=tokens, max_length=length, on_progress=Progress(report).of_step)
        return {"report": asdict(found.report), "warnings": [asdict(warning) for warning in found.warnings]}


class InspectKind(JobKind):
    """``folder`` holds the files of its jobs, ``defaults`` say what is looked for."""

    name = "inspect"
    id_prefix = "inspect"
    is_light = True
    runner = InspectRunner.path
    kept = timedelta(days=1)

    def __init__(
        self,
        versions: DatasetVersionService,
        library: DatasetLibrary,
        bases: BaseModelStore,
        defaults: PipelineConfig,
        folder: Path,
    ) -> None:
        self._versions = versions
        self._library = library
        self._bases = bases
        self._defaults = defaults
        self._folder = folder

    def check(self, principal: Principal, request: Mapping[str, Any]) -> Draft:
        """``dataset_id`` names the version; with ``base_model`` lengths are in its tokens."""
        faults: list[Fault] = []
        version = None
        try:
            version = self._versions.version(principal, str(request.get("dataset_id") or ""))
        except AppError as error:
            faults.append(Fault("dataset_id", error.code, error.message))
        base, length = request.get("base_model"), request.get("max_length", 1024)
        if base is not None:
            try:
                self._bases.spec(str(base))
            except AppError as error:
                faults.append(Fault("base_model", error.code, error.message))
        if not isinstance(length, int) or isinstance(length, bool) or not 16 <= length <= 131_072:
            faults.append(
                Fault("max_length", "bad_value", f"must be a number from 16 to 131072, not {length!r:.80}")
            )
        if faults or version is None:
            raise Invalid("the request has faults: nothing was started", faults=faults)
        return Draft(
            name=version.reference,
            config={"dataset_id": version.reference, "base_model": base, "max_length": length},
            base_model=base or "",
            dataset_digest=version.digest,
            dataset_id=version.dataset_id,
            dataset_number=version.number,
        )

    def begin(self, job: FineTuningJob, attempt: int, watch: Watch) -> Task:
        base = job.config["base_model"]
        folder = self._folder / job.id
        folder.mkdir(parents=True, exist_ok=True)
        job_file = {
            "rows_folder": str(self._library.folder(job.dataset_digest)),
            "pipeline": self._defaults.model_dump(mode="json"),
            "base_model_folder": None if base is None else str(self._bases.folder(base)),
            "max_length": job.config["max_length"],
        }
        return Task(job_file, folder, str(folder))

    @contextmanager
    def taking_up(
        self, job: FineTuningJob, attempt: int, result: Mapping[str, Any], folder: Path
    ) -> Iterator[Finished]:
        yield Finished(result)
        shutil.rmtree(folder, ignore_errors=True)

    def forget(self, job_id: str) -> None:
        shutil.rmtree(self._folder / job_id, ignore_errors=True)
