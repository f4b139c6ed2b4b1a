"""Where a run leaves its files."""

from datetime import datetime
from pathlib import Path

from app.core.entities.jobs import FineTuningJob
from app.core.entities.training_config import TrainingConfig


def make_run_folder(results: Path, job: FineTuningJob, config: TrainingConfig) -> Path:
    """``results/<experiment>_<time>[-n]``, or ``output_dir`` in the foreground; a later attempt finds the first's.

    The time is local. No two runs share a folder, unless ``output_dir`` says so.
    """
    if job.run_folder is not None:
        folder = results / job.run_folder  # an absolute path stays what it is
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    if job.asker.is_host and config.output_dir is not None:
        folder = Path(config.output_dir).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    return new_folder(results, f"{config.experiment_name}_{datetime.now().astimezone():%Y%m%d-%H%M%S}")


def new_folder(parent: Path, name: str) -> Path:
    """``name``, or ``name-2`` and so on where that is taken."""
    count = 1
    while True:
        folder = parent / (name if count == 1 else f"{name}-{count}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            count += 1
        else:
            return folder


def folder_name(results: Path, folder: Path) -> str:
    """What the job's row says: the name below ``results``, or the whole path."""
    return folder.name if folder.parent == results else str(folder)
