"""What a run leaves that did not come to its end, and who may go on with it."""

import re
from pathlib import Path

from app.core.entities.jobs import UnfinishedRun
from app.core.errors import Invalid
from app.utils.folders import manifest_of, sha256_of

_NAME = re.compile(r"^step-\d{8}$")


def checkpoints_in(folder: Path) -> list[Path]:
    """Oldest first, damaged ones too."""
    return sorted(path for path in folder.glob("step-*") if _NAME.match(path.name))


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest one that is what its manifest says; a damaged one is passed over."""
    return next((path for path in reversed(checkpoints_in(folder)) if _whole(path)), None)


def run_to_resume(folder: Path) -> UnfinishedRun:
    """``Invalid`` for a folder that is no run's (not_a_run) or holds no whole checkpoint (no_checkpoint)."""
    if not (folder / "config.yaml").is_file():
        raise Invalid(f"{folder} is not a run folder: it holds no config.yaml", code="not_a_run")
    found = [latest_checkpoint(path) for path in (folder / "checkpoints").glob("*") if path.is_dir()]
    whole = [path for path in found if path is not None]
    if not whole:
        raise Invalid(
            f"{folder} holds no whole checkpoint to go on from: begin anew with --config {folder}/config.yaml",
            code="no_checkpoint",
        )
    # Two jobs may have named one output_dir: the step says nothing of which is the later.
    newest = max(whole, key=lambda path: path.stat().st_mtime)
    job_id = newest.parent.name
    artifacts = manifest_of(folder / "artifacts") or {}
    return UnfinishedRun(folder, newest.parent, job_id, artifacts.get("job_id") == job_id)


def _whole(path: Path) -> bool:
    manifest = manifest_of(path)
    if manifest is None:
        return False
    return all(sha256_of(path / name) == entry["sha256"] for name, entry in manifest["files"].items())
