"""Jobs that say what a run would take: a few of its steps, measured."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.core.entities.forecasts import Forecast, Shortage
from app.core.entities.identity import Principal
from app.core.entities.jobs import FineTuningJob
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.job_kinds import Draft, Finished, JobKind, Task, Watch
from app.core.interfaces.operations import TrainerOutcome
from app.core.interfaces.stores import Stores
from app.core.services.jobs.forecasting import REHEARSAL_SECONDS, Forecasts, rehearsal_error
from app.core.services.jobs.preflight import check_job
from app.core.services.jobs.room import DATA_FOLDER, needs_room
from app.core.services.jobs.training_requests import TrainingRequests
from app.implementations.kinds.cuts import JobCuts


class EstimateKind(JobKind):
    """Takes the request of ``train``. ``folder`` holds the files of its jobs, ``runner`` rehearses."""

    name = "estimate"
    id_prefix = "estimate"
    is_light = True
    is_validated = True
    kept = timedelta(days=1)
    seconds = REHEARSAL_SECONDS

    def __init__(
        self,
        requests: TrainingRequests,
        stores: Stores,
        cuts: JobCuts,
        forecasts: Forecasts,
        folder: Path,
        runner: str,
    ) -> None:
        self._requests = requests
        self._stores = stores
        self._cuts = cuts
        self._forecasts = forecasts
        self._folder = folder
        self.runner = runner

    def check(self, principal: Principal, request: Mapping[str, Any]) -> Draft:
        return self._requests.draft(principal, request)

    def validate(self, job: FineTuningJob, watch: Watch) -> None:
        config = TrainingConfig.model_validate(job.config)
        with needs_room(DATA_FOLDER):
            prepared = self._cuts.of(job, config, watch)
            if prepared:
                check_job(config, prepared, self._stores, watch.go_on)

    def begin(self, job: FineTuningJob, attempt: int, watch: Watch) -> Task | Finished:
        config = TrainingConfig.model_validate(job.config)
        base = self._stores.bases.folder(config.base_model)
        dataset = self._dataset(job, config, watch)
        known = self._forecasts.known(config, base, dataset)
        if known is not None:
            return self._judged(config, known, base)
        self._forecasts.refuse_hopeless(config, base)
        folder = self._folder / job.id
        folder.mkdir(parents=True, exist_ok=True)
        return Task(self._forecasts.job_file(config, base, dataset), folder, str(folder))

    @contextmanager
    def taking_up(
        self, job: FineTuningJob, attempt: int, result: Mapping[str, Any], folder: Path
    ) -> Iterator[Finished]:
        config = TrainingConfig.model_validate(job.config)
        base = self._stores.bases.folder(config.base_model)
        dataset = self._dataset(job, config, None)
        found = self._forecasts.keep(config, base, dataset, TrainerOutcome("succeeded", result=result))
        yield self._judged(config, found, base)
        shutil.rmtree(folder, ignore_errors=True)

    def explain(
        self, outcome: TrainerOutcome, job_file: Mapping[str, Any], last_seen: Shortage | None
    ) -> TrainerOutcome:
        """Say in words of a forecast why there is none. A child that was killed is tried again as it is."""
        if outcome.kind != "failed" and outcome.code != "out_of_memory":
            return outcome
        error = rehearsal_error(outcome)
        return TrainerOutcome("failed", error.code, error.message, faults=tuple(error.faults))

    def forget(self, job_id: str) -> None:
        shutil.rmtree(self._folder / job_id, ignore_errors=True)

    def _dataset(self, job: FineTuningJob, config: TrainingConfig, watch: Watch | None) -> Path:
        with needs_room(DATA_FOLDER):
            return Path(self._cuts.whole(job, config, watch).folder)

    def _judged(self, config: TrainingConfig, found: Forecast, base: Path) -> Finished:
        return Finished(asdict(self._forecasts.judge(config, found, base)))
