"""The cut that a job trains on: its file's, its dataset version's, or what a pipeline makes of them."""

import tempfile
from pathlib import Path

from app.core.entities.datasets import SPLITS, PreparedDataset
from app.core.entities.jobs import FineTuningJob
from app.core.entities.training_config import TrainingConfig
from app.core.errors import Invalid, Unavailable
from app.core.interfaces.components import DatasetLibrary, DatasetStore
from app.core.interfaces.job_kinds import Watch
from app.core.interfaces.operations import TrainerLauncher
from app.core.services.data.cuts import cut_of
from app.core.services.jobs.children import run_child
from app.implementations.data.cuts import WHOLE, read_split
from app.implementations.kinds.process import PipelineRunner


class JobCuts:
    """``launcher`` starts the child process of a pipeline, with a folder below ``folder``."""

    def __init__(
        self, datasets: DatasetStore, library: DatasetLibrary, launcher: TrainerLauncher, folder: Path
    ) -> None:
        self._datasets = datasets
        self._library = library
        self._launcher = launcher
        self._folder = folder

    def whole(self, job: FineTuningJob, config: TrainingConfig, watch: Watch | None) -> PreparedDataset:
        """Return the cut. ``Unavailable`` (stopped) where its pipeline was told to stop, or none may run here.

        ``Conflict`` (dataset_changed), ``Unavailable`` (dataset_missing), or ``Invalid`` with what the pipeline
        finds wrong.
        """
        prepared = self.of(job, config, watch)
        if prepared is None:
            raise Unavailable("the pipeline was told to stop", code="stopped")
        return prepared

    def of(self, job: FineTuningJob, config: TrainingConfig, watch: Watch | None) -> PreparedDataset | None:
        """Return the cut as ``whole``; None where its pipeline was told to stop."""
        if config.pipeline is None:
            return cut_of(config, job, self._datasets)
        pipeline = config.pipeline.model_dump(mode="json")
        name = job.dataset_digest, config.seed, pipeline
        if (known := self._datasets.processed(*name)) is not None or watch is None:
            return known
        if config.dataset_id is not None:
            source, parts = self._library.folder(job.dataset_digest), [WHOLE]
        else:
            cut = cut_of(config, job, self._datasets)
            source, parts = Path(cut.folder), list(SPLITS)
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pipeline-", dir=self._folder) as made:
            job_file = {
                "job_id": job.id,
                "attempt": 1,
                "runner": PipelineRunner.path,
                "run_folder": made,
                "threads": 1,
                "rows_folder": str(source),
                "parts": parts,
                "pipeline": pipeline,
            }
            outcome = run_child(self._launcher, job_file, Path(made), watch.go_on)
            if outcome is None:
                return None
            if outcome.kind != "succeeded" or outcome.result is None:
                message = outcome.message or "the pipeline ended before its time"
                raise Invalid(
                    f"pipeline: {message}", code=outcome.code or "pipeline_failed", faults=outcome.faults
                )
            watch.say(f"the pipeline leaves {outcome.result['rows']:,} rows", {"pipeline": outcome.result})
            return self._datasets.keep_processed(*name, read_split(Path(made), WHOLE), outcome.result)
