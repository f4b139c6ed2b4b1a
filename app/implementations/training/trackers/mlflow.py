"""MLflow: the server of MLFLOW_TRACKING_URI, else a store of its own beside the run folders."""

import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.core.interfaces.components import Tracker, TrainerJob
from app.utils.folders import locked

SEND_SECONDS = 1.0  # a request carries the figures of so long: a step may take less than a request
MOST_METRICS = 1000  # of one request, says MLflow


class MlflowTracker(Tracker):
    """An experiment by the config's name, and in it a run a job: a later attempt goes on with the first's."""

    package, extra = "mlflow", "tracking"

    def __init__(self) -> None:
        self._waiting: list[Any] = []
        self._sent_at = float("-inf")

    def start(self, job: TrainerJob) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
        # mlflow 3.17 declares its tables in a way that SQLAlchemy 2.1 calls old.
        warnings.filterwarnings("ignore", "The ``noload`` loader strategy is deprecated", DeprecationWarning)
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        store = None if uri else job.run_folder.parent / "mlflow"
        if store is None:
            self._open(job, uri, None)
        else:
            with locked(store):  # two trainers that make its tables at once would fail
                store.mkdir(exist_ok=True)
                self._open(job, f"sqlite:///{store / 'mlflow.db'}", store / "artifacts")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, value, now, step) for name, value in figures.items()]
        if time.monotonic() - self._sent_at >= SEND_SECONDS:
            self._send()

    def text(self, step: int, name: str, text: str) -> None:
        self._client.log_text(self._run, text, f"{name}/step-{step:08d}.txt")

    def finish(self, succeeded: bool) -> None:
        self._send()
        self._client.set_terminated(self._run, "FINISHED" if succeeded else "KILLED")

    def _open(self, job: TrainerJob, uri: str | None, artifacts: Path | None) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param, RunTag

        self._client = MlflowClient(uri)
        experiment = self._experiment(job.config.experiment_name, artifacts)
        found = self._client.search_runs([experiment], f"tags.job_id = '{job.job_id}'", max_results=1)
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, "RUNNING")
            return
        self._run = self._client.create_run(experiment, run_name=job.run_folder.name).info.run_id
        self._client.log_batch(
            self._run,
            params=[Param(name, str(value)) for name, value in _flat(job.config.model_dump(mode="json")).items()],
            tags=[RunTag("job_id", job.job_id), RunTag("base_model", job.config.base_model)],
        )

    def _experiment(self, name: str, artifacts: Path | None) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        return self._client.create_experiment(name, artifacts.as_uri() if artifacts else None)

    def _send(self) -> None:
        while self._waiting:
            self._client.log_batch(self._run, metrics=self._waiting[:MOST_METRICS])
            del self._waiting[:MOST_METRICS]
        self._sent_at = time.monotonic()


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
