"""The cut of the data that a config names: a file's, or a dataset version's."""

from app.core.entities.datasets import PreparedDataset
from app.core.entities.jobs import FineTuningJob
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import DatasetStore


def cut_of(config: TrainingConfig, job: FineTuningJob, datasets: DatasetStore) -> PreparedDataset:
    """Return the cut of a job's data. ``Conflict`` (dataset_changed), ``Unavailable`` (dataset_missing)."""
    if config.dataset_id is not None:
        return datasets.prepare_version(job.dataset_digest, config.seed)
    return datasets.prepare(config.dataset_path, job.dataset_digest, config.seed, trusted=job.asker.is_host)
