"""Jobs that train: the request, the check of its data, the run, and the version that it publishes."""

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from app.core.entities.datasets import PreparedDataset
from app.core.entities.forecasts import Shortage
from app.core.entities.identity import Principal
from app.core.entities.jobs import FineTuningJob
from app.core.entities.limits import ProjectUse
from app.core.entities.models import ModelVersion, Reference
from app.core.entities.training_config import TrainingConfig
from app.core.errors import AppError, Forbidden, NotFound
from app.core.interfaces.job_kinds import Draft, Finished, JobKind, Task, Watch
from app.core.interfaces.operations import TrainerOutcome
from app.core.interfaces.stores import Stores
from app.core.services.jobs.forecasting import Forecasts
from app.core.services.jobs.preflight import check_job
from app.core.services.jobs.room import DATA_FOLDER, REGISTRY, RUN_FOLDER, needs_room
from app.core.services.jobs.run_folders import folder_name, make_run_folder
from app.core.services.jobs.shortage import explain
from app.core.services.jobs.training_requests import TrainingRequests
from app.core.services.models.resolver import ModelResolver
from app.implementations.kinds.cuts import JobCuts
from app.utils.files import write_whole

VERSION_IDS = uuid.UUID("6f5c6f0e-6f0b-4a0e-9a53-2f6f3f1c7b55")
ONE_VERSION = ProjectUse(storage_bytes=1, versions=1)  # whose size nobody knows yet


class TrainKind(JobKind):
    """``runner`` is the trainer that the settings name."""

    name = "train"
    id_prefix = "ftjob"
    can_pause = True
    is_validated = True
    needs = ONE_VERSION

    def __init__(
        self,
        requests: TrainingRequests,
        stores: Stores,
        resolver: ModelResolver,
        cuts: JobCuts,
        forecasts: Forecasts,
        results_dir: Path,
        runner: str,
    ) -> None:
        self._requests = requests
        self._stores = stores
        self._resolver = resolver
        self._cuts = cuts
        self._forecasts = forecasts
        self._results = results_dir
        self.runner = runner

    def check(self, principal: Principal, request: Mapping[str, Any]) -> Draft:
        return self._requests.draft(principal, request)

    def validate(self, job: FineTuningJob, watch: Watch) -> None:
        config = TrainingConfig.model_validate(job.config)
        # Gone artifacts are a fault of now, not of when it is its turn.
        self._start_from(job, config, watch)
        with needs_room(DATA_FOLDER):
            prepared = self._cuts.of(job, config, watch)
            found = prepared and check_job(config, prepared, self._stores, watch.go_on)
        if not prepared or not found:
            return
        every = found.ledger.all
        message = (
            f"tokens: {every.trained:,} trained, {every.masked:,} masked, {every.truncated:,} truncated, "
            f"{every.dropped:,} dropped"
        )
        watch.say(message, {"token_ledger": found.ledger.as_dict()})
        base = self._stores.bases.folder(config.base_model)
        self._forecasts.check_fit(config, base, Path(prepared.folder), found.longest_row, watch.go_on)

    def begin(self, job: FineTuningJob, attempt: int, watch: Watch) -> Task:
        config = TrainingConfig.model_validate(job.config)
        base = self._stores.bases.folder(config.base_model)
        start_from = self._start_from(job, config, watch)
        with needs_room(DATA_FOLDER):
            prepared = self._cuts.whole(job, config, watch)
        with needs_room(RUN_FOLDER):
            folder = make_run_folder(self._results, job, config)
            plain = config.model_dump(mode="json")
            write_whole(folder / "config.yaml", yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))
            self._leave_report(folder, prepared)
        known = self._forecasts.known(config, base, Path(prepared.folder))
        job_file = {
            **self._forecasts.job_file(config, base, Path(prepared.folder)),
            "start_from": None if start_from is None else str(start_from),
            "forecast": None if known is None else asdict(known),
        }
        return Task(job_file, folder, folder_name(self._results, folder))

    @contextmanager
    def taking_up(
        self, job: FineTuningJob, attempt: int, result: Mapping[str, Any], folder: Path
    ) -> Iterator[Finished]:
        """Artifacts first, then the row; the id belongs to this attempt, so that again is the same again."""
        config = TrainingConfig.model_validate(job.config)
        source = folder / "artifacts"
        with needs_room(REGISTRY):
            artifacts = self._stores.artifacts.publish(_version_id(job, attempt), source)
        version = ModelVersion(
            id=artifacts,
            project_id=job.project_id,
            name=config.published_name,
            number=0,
            base_model=config.base_model,
            template_hash=result["template_hash"],
            artifacts=artifacts,
            job_id=job.id,
            dataset_digest=job.dataset_digest,
            config=job.config,
            metrics=result["metrics"],
            created_by=job.created_by,
            created_at=datetime.now(UTC),
            base_digest=self._stores.bases.digest(config.base_model),
            size=sum(file.stat().st_size for file in source.rglob("*") if file.is_file()),
        )
        try:
            yield Finished(result["metrics"], [version])
        except AppError as error:
            self._stores.artifacts.discard(artifacts)
            if error.code == "quota_exceeded":
                message = (
                    f"trained, and not published: {error.message}; what was trained stays in the run's folder"
                )
                raise Forbidden(message, code=error.code) from error
            raise

    def discard(self, job: FineTuningJob, attempt: int) -> None:
        self._stores.artifacts.discard(_version_id(job, attempt))

    def explain(
        self, outcome: TrainerOutcome, job_file: Mapping[str, Any], last_seen: Shortage | None
    ) -> TrainerOutcome:
        """Say of a run that ran out of memory by how much, and with which settings it would take less."""
        if outcome.code != "out_of_memory":
            return outcome
        config = TrainingConfig.model_validate(job_file["config"])
        message = explain(outcome.message or "out of memory", outcome.shortage or last_seen, config, job_file)
        return replace(outcome, message=message)

    def _start_from(self, job: FineTuningJob, config: TrainingConfig, watch: Watch) -> Path | None:
        """Return the artifacts of the version that the job trains on from; it was found when it was submitted."""
        if config.from_version is None:
            return None
        reference = Reference.parse(config.from_version)
        version = watch.persist(partial(self._resolver.version, job.project_id, reference))
        if version is None:
            raise NotFound(f"from_version: {config.from_version} is gone", code="model_not_found")
        self._resolver.check_base(version)
        return self._stores.artifacts.folder(version)

    @staticmethod
    def _leave_report(folder: Path, prepared: PreparedDataset) -> None:
        if prepared.pipeline:
            report = json.dumps(prepared.pipeline, ensure_ascii=False, indent=2) + "\n"
            write_whole(folder / "pipeline_report.json", report)


def _version_id(job: FineTuningJob, attempt: int) -> str:
    return uuid.uuid5(VERSION_IDS, f"{job.id}/{attempt}").hex
