"""Fine-tuning jobs of OpenAI's dialect: what its requests mean to the services that are here anyway."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.core.entities.identity import Principal
from app.core.entities.jobs import FineTuningJob
from app.core.entities.served_models import tuned_name
from app.core.entities.tuning import SavedCheckpoint, TuningRequest
from app.core.errors import Fault, Invalid, NotFound
from app.core.interfaces.services.jobs import Tuning
from app.core.interfaces.storage import ModelVersionRepository
from app.core.services.data.dataset_versions import DatasetVersionService
from app.core.services.jobs.job_records import JobRecords
from app.core.services.jobs.resuming import checkpoints_in
from app.core.services.jobs.training import TrainingService
from app.core.services.models.resolver import ModelResolver

MOST_POINTS = 2000
# What OpenAI's request calls keys of TrainingConfig.
_NAMES = {
    "base_model": "model",
    "from_version": "model",
    "dataset_id": "training_file",
    "num_epochs": "n_epochs",
    "learning_rate": "learning_rate_multiplier",
    "dpo_beta": "beta",
    "model_name": "suffix",
}


class TuningService(Tuning):
    """``results_dir`` is where runs leave their checkpoints, if this host sees it."""

    def __init__(
        self,
        training: TrainingService,
        records: JobRecords,
        files: DatasetVersionService,
        resolver: ModelResolver,
        versions: ModelVersionRepository,
        results_dir: Path,
    ) -> None:
        self._training = training
        self._records = records
        self._files = files
        self._resolver = resolver
        self._versions = versions
        self._results_dir = results_dir

    def create(self, principal: Principal, asked: TuningRequest) -> FineTuningJob:
        faults: list[Fault] = []
        config: dict[str, Any] = dict(asked.config)
        if asked.learning_rate_multiplier is not None:
            config["learning_rate"] = asked.learning_rate_multiplier * self._training.defaults.learning_rate
        try:
            config |= self._beginning(principal, asked.model)
        except (Invalid, NotFound) as error:
            faults.append(Fault("model", error.code, error.message))
        config["dataset_id"] = asked.training_file
        validation = None
        if asked.validation_file is not None:
            try:
                validation = self._files.version(principal, asked.validation_file)
            except (Invalid, NotFound) as error:
                faults.append(Fault("validation_file", error.code, error.message))
        try:
            self._training.check(principal, config)
        except Invalid as error:
            faults += map(_renamed, error.faults)
        if faults:
            raise Invalid("the request has faults: nothing was started", faults=faults)
        combined = None
        if validation is not None:
            training = self._files.version(principal, asked.training_file)
            combined = self._files.with_validation(principal, training, validation)
            config["dataset_id"] = combined.reference
        job = None
        try:
            job = self._training.submit_once(
                principal,
                config,
                since=asked.since,
                request={
                    "training_file": asked.training_file,
                    "validation_file": asked.validation_file,
                    "metadata": dict(asked.metadata),
                },
                request_key=asked.key,
                is_retry=asked.is_retry,
                priority=asked.priority,
                queue=asked.queue,
            )
        except Invalid as error:
            raise Invalid(error.message, code=error.code, faults=[_renamed(f) for f in error.faults]) from None
        finally:
            if combined is not None and (job is None or job.dataset_id != combined.dataset_id):
                self._files.delete(principal, combined.dataset_id)
        return job

    def config_faults(self, principal: Principal, model: str, config: Mapping[str, Any]) -> Sequence[Fault]:
        with suppress(Invalid, NotFound):  # ``create`` says so
            config = {**config, **self._beginning(principal, model)}
        return self._training.config_faults(principal, config)

    def fine_tuned_model(self, job: FineTuningJob) -> str | None:
        if job.model_version_id is None:
            return None
        version = self._versions.get(job.project_id, job.model_version_id)
        return None if version is None else tuned_name(version)

    def checkpoints(self, principal: Principal, job_id: str) -> Sequence[SavedCheckpoint]:
        job = self._records.get(principal, job_id, "train")
        if job.run_folder is None:
            return []
        points = self._records.metrics(principal, job_id, points=MOST_POINTS).points
        found = []
        for folder in reversed(checkpoints_in(self._results_dir / job.run_folder / "checkpoints" / job.id)):
            step = int(folder.name.removeprefix("step-"))
            figures = {
                name: figure.mean
                for point in points
                if point.first_step <= step <= point.last_step
                for name, figure in point.figures.items()
                if figure.mean is not None
            }
            found.append(SavedCheckpoint(step, datetime.fromtimestamp(folder.stat().st_mtime, UTC), figures))
        return found

    def multiplier(self, job: FineTuningJob) -> float:
        default = job.request.get("default_learning_rate", self._training.defaults.learning_rate)
        return float(f"{job.config['learning_rate'] / default:.6g}")

    def _beginning(self, principal: Principal, model: str) -> Mapping[str, str]:
        """A version of the project comes before a base model of the same name, as when it is asked."""
        reference = self._resolver.reference(principal.project_id, model)
        version = self._resolver.find(principal.project_id, reference)
        return {"base_model": reference} if version is None else {"from_version": version.reference}


def _renamed(fault: Fault) -> Fault:
    """By the name that OpenAI's request has for it."""
    where = fault.where.removeprefix("config.")
    return Fault(_NAMES.get(where, where), fault.code, fault.message)
