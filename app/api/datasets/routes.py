"""Datasets and their versions."""

from typing import Any

from app.api.datasets.schemas import (
    DatasetDiffSchema,
    DatasetListSchema,
    DatasetQuerySchema,
    DatasetReportSchema,
    DatasetSchema,
    DatasetVersionListSchema,
    DatasetVersionSchema,
    DiffQuerySchema,
    InspectQuerySchema,
    NextVersionQuerySchema,
    PreviewQuerySchema,
    PreviewSchema,
    ProcessSchema,
    RestoreSchema,
    TagSchema,
    UploadQuerySchema,
    UploadSchema,
    ValidationSchema,
)
from app.api.jobs.routes import JOB
from app.api.jobs.schemas import AnyJobSchema, PreferSchema
from app.api.jobs.waiting import TAKES_LONGER, accepted
from app.core.entities.data_pipeline import DatasetReport
from app.core.entities.dataset_versions import DatasetDiff, DatasetPage, DatasetSummary, DatasetVersion
from app.core.entities.identity import Role
from app.core.entities.jobs import FineTuningJob, JobState
from app.core.errors import Invalid, Unavailable
from app.extensions import current_services
from app.gateway.authentication import current_principal, require
from app.gateway.idempotency import creates
from app.gateway.openapi import Blueprint
from app.gateway.uploads import takes_upload

blueprint = Blueprint("datasets", __name__, url_prefix="/api/v1/datasets", description="Data to train on")

VERSION = {
    "reference": "ds-0123456789abcdef01234567:1",
    "dataset_id": "ds-0123456789abcdef01234567",
    "number": 1,
    "digest": "9f2c" * 16,
    "format": "messages",
    "rows": 256,
    "size": 41_300,
    "source": "support.jsonl",
    "parent": None,
    "pipeline": {},
    "changes": [],
    "created_by": "user-0123",
    "created_at": "2026-11-24T09:30:00+00:00",
}
DATASET = {
    "id": "ds-0123456789abcdef01234567",
    "name": "support",
    "created_by": "user-0123",
    "created_at": "2026-11-24T09:30:00+00:00",
    "newest": VERSION,
    "tags": {"reviewed": 1},
}
DIFF = {
    "before": "ds-0123456789abcdef01234567:1",
    "after": "ds-0123456789abcdef01234567:2",
    "unchanged": 250,
    "counts": {"added": 0, "removed": 4, "changed": 2},
    "changes": [],
}


REPORT = {
    "total_samples": 256,
    "label_counts": {},
    "imbalance_ratio": None,
    "is_balanced": None,
    "unit": "tokens",
    "lengths": {"50": 62, "90": 84, "95": 91, "99": 102, "100": 117},
    "languages": {"en": 256},
    "warning_counts": {"duplicate": 1},
    "rates": {"tokens": 5900.0},
}
WARNING = {"row": 12, "code": "duplicate", "message": "is the same as row 3: leave one out"}
PREVIEW = {
    "row": 1,
    "objective": "sft",
    "reasoning": "keep",
    "sequences": [{"name": "row", "tokens": [{"id": 1, "text": "<|im_start|>", "kind": "masked"}]}],
    "count": {"trained": 0, "masked": 1, "truncated": 0, "dropped": 0, "total": 1},
    "label": None,
}
ROWS = '{"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day."}]}\n'
MOST_ROWS = 5000  # that the slow checks of a request look through, in seconds


@blueprint.post("")
@require(Role.DEVELOPER)
@takes_upload
@creates()
@blueprint.arguments(UploadQuerySchema, location="query")
@blueprint.arguments(UploadSchema, location="files", example={"file": ROWS})
@blueprint.response(201, DatasetVersionSchema, example=VERSION)
@blueprint.errors(409, 413)
def upload(query: dict[str, Any], files: dict[str, Any]) -> DatasetVersion:
    """Upload rows as a new dataset

    The file is kept whole or not at all: one with faults is refused, and the answer lists all of them.
    """
    file = files["file"]
    return current_services().dataset_changes.upload(
        current_principal(), file.stream, file.filename or "", **query
    )


@blueprint.get("")
@require(Role.VIEWER)
@blueprint.arguments(DatasetQuerySchema, location="query")
@blueprint.response(200, DatasetListSchema, example={"data": [DATASET], "next": None})
@blueprint.errors()
def list_datasets(query: dict[str, Any]) -> DatasetPage:
    """List datasets, newest first

    Those of the project, each with its newest version and its tags. 422 for an `after` that is no dataset of it.
    """
    return current_services().dataset_versions.list(current_principal(), **query)


@blueprint.get("/<dataset_id>")
@require(Role.VIEWER)
@blueprint.response(200, DatasetSchema, example=DATASET)
@blueprint.errors(404)
def show(dataset_id: str) -> DatasetSummary:
    """Show a dataset and its newest version

    `tags` tells by name the version that each stands for. 404 `dataset_not_found`, for another project's too.
    """
    return current_services().dataset_versions.get(current_principal(), dataset_id)


@blueprint.delete("/<dataset_id>")
@require(Role.DEVELOPER)
@blueprint.response(204)
@blueprint.errors(404, 409)
def delete(dataset_id: str) -> None:
    """Delete a dataset with all of its versions

    Refused while a job, or a model version that came of one, refers to it.
    """
    current_services().dataset_changes.delete(current_principal(), dataset_id)


@blueprint.get("/<dataset_id>/versions")
@require(Role.VIEWER)
@blueprint.response(200, DatasetVersionListSchema, example={"data": [VERSION]})
@blueprint.errors(404)
def list_versions(dataset_id: str) -> dict[str, Any]:
    """List a dataset's versions, newest first

    All of them: a dataset has one at least. `parent` is the version that the pipeline, or a restore, made it of;
    null for uploaded rows.
    """
    return {"data": current_services().dataset_versions.versions(current_principal(), dataset_id)}


@blueprint.post("/<dataset_id>/versions")
@require(Role.DEVELOPER)
@takes_upload
@creates()
@blueprint.arguments(NextVersionQuerySchema, location="query")
@blueprint.arguments(UploadSchema, location="files", example={"file": ROWS})
@blueprint.response(201, DatasetVersionSchema, example=VERSION)
@blueprint.errors(404, 413)
def upload_version(query: dict[str, Any], files: dict[str, Any], dataset_id: str) -> DatasetVersion:
    """Upload rows as a dataset's next version

    Kept whole or not at all: a file with faults is refused, and the answer lists all of them. The versions before
    it stay as they are, and so do the tags.
    """
    file = files["file"]
    return current_services().dataset_changes.upload(
        current_principal(), file.stream, file.filename or "", dataset_id=dataset_id, **query
    )


@blueprint.get("/<dataset_id>/stats")
@require(Role.VIEWER)
@blueprint.arguments(InspectQuerySchema, location="query")
@blueprint.response(200, DatasetReportSchema, example=REPORT)
@blueprint.errors(404, 503)
def stats(query: dict[str, Any], dataset_id: str) -> DatasetReport:
    """See what a dataset holds: rows, labels, lengths

    Lengths are in tokens where `base_model` is named and there are at most 5,000 rows, else in characters. 422
    `dataset_too_large` where the rows are more than the service's `max_body_bytes`: a job looks through those.
    """
    preparation = current_services().data_preparation
    rows = preparation.rows(current_principal(), _reference(dataset_id, query.pop("version")))
    if len(rows) > MOST_ROWS:
        query["base_model"] = None  # to tokenize is slow too: lengths are in characters then, as ``unit`` says
    return preparation.inspect(rows, **query, slow_checks=False).report


@blueprint.post("/<dataset_id>/validate")
@require(Role.VIEWER)
@blueprint.arguments(PreferSchema, location="headers")
@blueprint.arguments(InspectQuerySchema, location="query")
@blueprint.response(200, ValidationSchema, example={"report": REPORT, "warnings": [WARNING]})
@blueprint.alt_response(202, schema=AnyJobSchema, description=TAKES_LONGER, example={**JOB, "kind": "inspect"})
@blueprint.errors(404, 503)
def validate(headers: dict[str, Any], query: dict[str, Any], dataset_id: str) -> Any:
    """See what is legal in a dataset and yet suspicious

    Near-duplicates, languages, secrets and personal data are looked for, and tokens counted. Of more than 5,000
    rows, or more than the service's `max_body_bytes`, a job of kind `inspect` does it. What is not there within
    ten seconds (`Prefer: wait=N` for up to 30) is 202 with the job: its `result` is the answer, kept for a day.
    """
    services, principal = current_services(), current_principal()
    reference = _reference(dataset_id, query.pop("version"))
    try:
        rows = services.data_preparation.rows(principal, reference)
    except Invalid as error:
        if error.code != "dataset_too_large":
            raise
    else:
        if len(rows) <= MOST_ROWS:
            return services.data_preparation.inspect(rows, **query)
    job = services.jobs.submit(principal, "inspect", {"dataset_id": reference, **query})
    job = services.job_records.wait(principal, job.id, headers["wait"])
    if job.error is not None:
        raise Unavailable(job.error.message, code="inspect_failed", faults=job.error.faults)
    return job.result if job.state is JobState.SUCCEEDED else accepted(job)


@blueprint.post("/<dataset_id>/process")
@require(Role.DEVELOPER)
@creates()
@blueprint.arguments(ProcessSchema, example={"config": {"steps": ["clean", "split", "augment"]}})
@blueprint.response(202, AnyJobSchema, example=JOB)
@blueprint.errors(400, 404, 413)
def process(body: dict[str, Any], dataset_id: str) -> FineTuningJob:
    """Make a dataset's next version with the data pipeline

    A job of kind `process` does the steps of `config`: the keys of `flask data process`, over the service's
    `data_pipeline.yaml`. `GET /api/v1/jobs/{job_id}` shows how far it is; once it has succeeded, `made` names the
    new version and `result` says what each step did. 422 lists every fault of the config.
    """
    request = {"dataset_id": _reference(dataset_id, body["version"]), "config": body["config"]}
    return current_services().jobs.submit(current_principal(), "process", request)


@blueprint.get("/<dataset_id>/preview")
@require(Role.VIEWER)
@blueprint.arguments(PreviewQuerySchema, location="query")
@blueprint.response(200, PreviewSchema, example=PREVIEW)
@blueprint.errors(404, 503)
def preview(query: dict[str, Any], dataset_id: str) -> dict[str, Any]:
    """See a row as a base model reads it, token by token: trained, masked, truncated

    As a job would train on it, with the objective for rows of its shape. A preference has two sequences, and a
    long text one for each piece. 404 `row_not_found`; 422 says what would keep the row from training.
    """
    reference = _reference(dataset_id, query.pop("version"))
    row = query.pop("row")
    return current_services().data_preparation.preview(current_principal(), reference, row, **query).as_dict()


@blueprint.post("/<dataset_id>/restore")
@require(Role.DEVELOPER)
@creates()
@blueprint.arguments(RestoreSchema, example={"version": 1})
@blueprint.response(201, DatasetVersionSchema, example={**VERSION, "number": 3, "parent": 1})
@blueprint.errors(400, 404)
def restore(body: dict[str, Any], dataset_id: str) -> DatasetVersion:
    """Make the rows of an earlier version the newest one

    A new version with the same rows: its `parent` is the earlier one, and those between the two stay. 404 where
    the dataset has no such version.
    """
    return current_services().dataset_changes.restore(current_principal(), f"{dataset_id}:{body['version']}")


@blueprint.get("/<dataset_id>/diff")
@require(Role.VIEWER)
@blueprint.arguments(DiffQuerySchema, location="query")
@blueprint.response(200, DatasetDiffSchema, example=DIFF)
@blueprint.errors(404)
def diff(query: dict[str, Any], dataset_id: str) -> DatasetDiff:
    """See what became of the rows from one version to another

    Rows are compared by their content, wherever they stand. One with the same first question, or of a text the
    same first eight words, and other words after it is `changed`. All are counted; `changes` shows the first
    `limit`: the changed ones, then the added, then the removed. 422 `dataset_too_large` where the rows of one
    version are more than the service's `max_body_bytes`: the operator compares those with `flask data diff`.
    """
    return current_services().dataset_versions.diff(
        current_principal(),
        f"{dataset_id}:{query['before']}",
        f"{dataset_id}:{query['after']}",
        query["limit"],
    )


@blueprint.put("/<dataset_id>/tags/<tag>")
@require(Role.DEVELOPER)
@blueprint.arguments(TagSchema, example={"version": 1})
@blueprint.response(200, DatasetSchema, example=DATASET)
@blueprint.errors(400, 404)
def set_tag(body: dict[str, Any], dataset_id: str, tag: str) -> DatasetSummary:
    """Have a tag name a version; it moves if it named another

    `ds-…@tag` then stands for that version. Jobs keep the version that it named when they were sent. 404 where the
    dataset has no such version.
    """
    return current_services().dataset_changes.tag(current_principal(), f"{dataset_id}:{body['version']}", tag)


@blueprint.delete("/<dataset_id>/tags/<tag>")
@require(Role.DEVELOPER)
@blueprint.response(200, DatasetSchema, example=DATASET)
@blueprint.errors(404)
def remove_tag(dataset_id: str, tag: str) -> DatasetSummary:
    """Remove a tag; the version stays

    Jobs that were sent with it keep theirs too. 404 `tag_not_found` where the dataset has no such tag.
    """
    return current_services().dataset_changes.untag(current_principal(), dataset_id, tag)


def _reference(dataset_id: str, version: int | None) -> str:
    return dataset_id if version is None else f"{dataset_id}:{version}"
