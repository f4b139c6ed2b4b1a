"""The cut of the data that a config names: a file's, or a dataset version's."""

from app.core.entities.datasets import PreparedDataset
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import DatasetStore


def cut_of(config: TrainingConfig, digest: str, datasets: DatasetStore, *, trusted: bool) -> PreparedDataset:
    """``digest`` is that of the job. ``Conflict`` (dataset_changed), ``Unavailable`` (dataset_missing)."""
    if config.dataset_id is not None:
        return datasets.prepare_version(digest, config.seed)
    return datasets.prepare(config.dataset_path, digest, config.seed, trusted=trusted)
