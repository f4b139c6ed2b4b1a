"""Datasets, and what jobs have measured, as OpenAI's files."""

import csv
import io
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from app.core.entities.dataset_versions import DatasetSummary
from app.core.entities.datasets import Conversation
from app.core.entities.jobs import FineTuningJob
from app.core.entities.metrics import MetricCurve

UPLOADED = "fine-tune"
RESULTS = "fine-tune-results"
MOST_RESULT_ROWS = 2000
# OpenAI's columns, and what events call them.
RESULT_COLUMNS: Mapping[str, str] = {
    "train_loss": "loss",
    "train_accuracy": "accuracy",
    "valid_loss": "eval_loss",
    "valid_mean_token_accuracy": "eval_accuracy",
}
_RESULT_ID = re.compile(r"file-([0-9a-f]{24})")


def upload_name(filename: str) -> tuple[str, str]:
    """A new dataset's name after the file, and the file's with an ending: JSON lines where it has none."""
    path = Path(filename or "upload")
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-")[:50] or "upload"
    return f"{stem}-{secrets.token_hex(4)}", path.name if path.suffix else f"{path.name}.jsonl"


def uploaded_file(found: DatasetSummary) -> dict[str, Any]:
    return _file(
        found.dataset.id, found.newest.size, found.dataset.created_at.timestamp(), found.newest.source, UPLOADED
    )


def result_file(job: FineTuningJob, curve: MetricCurve) -> dict[str, Any]:
    made = (job.finished_at or job.created_at).timestamp()
    return _file(result_file_id(job), len(result_csv(curve)), made, "step_metrics.csv", RESULTS)


def result_file_id(job: FineTuningJob) -> str:
    return job.id.replace("ftjob-", "file-")


def job_of_result(file_id: str) -> str | None:
    """The job whose results a file is; None for other files."""
    match = _RESULT_ID.fullmatch(file_id)
    return match and f"ftjob-{match[1]}"


def result_csv(curve: MetricCurve) -> bytes:
    """A row for each point of the curve: means, where a point sums up several steps."""
    written = io.StringIO(newline="")
    lines = csv.writer(written, lineterminator="\n")
    lines.writerow(["step", *RESULT_COLUMNS])
    for point in curve.points:
        means = {name: figure.mean for name, figure in point.figures.items() if figure.mean is not None}
        lines.writerow([point.last_step, *(means.get(name, "") for name in RESULT_COLUMNS.values())])
    return written.getvalue().encode()


def as_json_lines(rows: Iterator[Conversation]) -> Iterator[bytes]:
    for row in rows:
        yield json.dumps(_row(row), ensure_ascii=False).encode() + b"\n"


def _row(row: Conversation) -> dict[str, Any]:
    """In OpenAI's shapes, where it has one: of a conversation, and of a preference."""
    kept = dict(row.extra) if row.split is None else {**row.extra, "split": row.split}
    if row.rejected is not None:
        pair = {"preferred_output": [row.messages[-1]], "non_preferred_output": [row.rejected]}
        return {"input": {"messages": list(row.messages[:-1])}, **pair, **kept}
    if row.text is not None:
        return {"text": row.text, **({} if row.label is None else {"label": row.label}), **kept}
    return {"messages": list(row.messages), **kept}


def _file(file_id: str, size: int, created: float, filename: str, purpose: str) -> dict[str, Any]:
    return {
        "id": file_id,
        "object": "file",
        "bytes": size,
        "created_at": int(created),
        "filename": filename,
        "purpose": purpose,
        "status": "processed",
        "status_details": None,
        "expires_at": None,
    }
