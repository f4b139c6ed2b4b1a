"""Files, which are datasets; and what jobs have measured."""

from typing import Any

from flask import Response
from marshmallow import RAISE

from app.api.openai.file_schemas import (
    DeletedSchema,
    FileListSchema,
    FileQuerySchema,
    FileSchema,
    OpenAIUploadSchema,
)
from app.api.openai.files import (
    MOST_RESULT_ROWS,
    RESULTS,
    as_json_lines,
    job_of_result,
    result_csv,
    result_file,
    upload_name,
    uploaded_file,
)
from app.core.entities.identity import Role
from app.core.entities.jobs import FineTuningJob, JobState
from app.core.entities.metrics import MetricCurve
from app.core.errors import Conflict, NotFound
from app.extensions import current_services
from app.gateway.authentication import current_principal, require
from app.gateway.idempotency import creates
from app.gateway.openapi import OpenAIBlueprint
from app.gateway.uploads import takes_upload

blueprint = OpenAIBlueprint(
    "openai_files", __name__, url_prefix="/v1/files", description="OpenAI's dialect: files to train on"
)

FILE = {
    "id": "ds-0123456789abcdef01234567",
    "object": "file",
    "bytes": 41_300,
    "created_at": 1795253400,
    "filename": "support.jsonl",
    "purpose": "fine-tune",
    "status": "processed",
    "status_details": None,
    "expires_at": None,
}
UPLOAD = {
    "file": '{"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]}\n',
    "purpose": "fine-tune",
}
DELETED = {"id": FILE["id"], "object": "file", "deleted": True}


@blueprint.post("")
@require(Role.DEVELOPER)
@takes_upload
@creates()
@blueprint.arguments(OpenAIUploadSchema, location="files", unknown=RAISE, example=UPLOAD)
@blueprint.response(200, FileSchema, example=FILE)
@blueprint.errors(413, 422)
def upload_file(form: dict[str, Any]) -> dict[str, Any]:
    """Upload a file to train on: a new dataset of the project

    In any format that datasets take; a name without an ending is taken as JSON lines. It is kept whole or not at
    all: one with faults is refused, and the answer lists all of them.
    """
    file = form["file"]
    name, source = upload_name(file.filename or "")
    services, principal = current_services(), current_principal()
    made = services.dataset_changes.upload(principal, file.stream, source, name=name)
    return uploaded_file(services.dataset_versions.get(principal, made.dataset_id))


@blueprint.get("")
@require(Role.VIEWER)
@blueprint.arguments(FileQuerySchema, location="query")
@blueprint.response(200, FileListSchema, example={"object": "list", "data": [FILE], "has_more": False})
@blueprint.errors(422)
def list_files(query: dict[str, Any]) -> dict[str, Any]:
    """List the files to train on, or with `purpose=fine-tune-results` what jobs have measured

    The project's datasets, each with the size and the name of its newest version. Results are of jobs that have
    succeeded, and come newest first.
    """
    services, principal = current_services(), current_principal()
    page = {"limit": query["limit"], "after": query["after"]}
    if query["purpose"] == RESULTS:
        if page["after"] is not None:
            page["after"] = job_of_result(page["after"]) or page["after"]
        jobs = services.job_records.list(principal, kind="train", state=JobState.SUCCEEDED, **page)
        shown = [result_file(*_measured(job.id)) for job in jobs.jobs]
        return {"object": "list", "data": shown, "has_more": jobs.next is not None}
    found = services.dataset_versions.list(principal, **page, oldest_first=query["order"] == "asc")
    shown = [uploaded_file(one) for one in found.datasets]
    return {"object": "list", "data": shown, "has_more": found.next is not None}


@blueprint.get("/<file_id>")
@require(Role.VIEWER)
@blueprint.response(200, FileSchema, example=FILE)
@blueprint.errors(404)
def show_file(file_id: str) -> dict[str, Any]:
    """Show one file

    A dataset, by its newest version, or as `file-…` what a job has measured: that is there once the job has
    succeeded, and 404 until then.
    """
    if job_id := job_of_result(file_id):
        return result_file(*_measured(job_id))
    return uploaded_file(current_services().dataset_versions.get(current_principal(), file_id))


@blueprint.get("/<file_id>/content")
@require(Role.VIEWER)
@blueprint.response(200, content_type="application/octet-stream", example='{"messages": […]}')
@blueprint.errors(404, 503)
def file_content(file_id: str) -> Response:
    """Read a file: its rows as JSON lines in OpenAI's shape, or the table of what a job has measured

    Of a dataset the rows of its newest version are read. What a job has measured is csv, with a line for a step;
    of a long run a line is the mean of several.
    """
    if job_id := job_of_result(file_id):
        return Response(result_csv(_measured(job_id)[1]), content_type="text/csv; charset=utf-8")
    versions, principal = current_services().dataset_versions, current_principal()
    rows = versions.rows(principal, versions.get(principal, file_id).newest.reference)
    return Response(as_json_lines(iter(rows)), content_type="application/octet-stream")


@blueprint.delete("/<file_id>")
@require(Role.DEVELOPER)
@blueprint.response(200, DeletedSchema, example=DELETED)
@blueprint.errors(404, 409)
def delete_file(file_id: str) -> dict[str, Any]:
    """Delete a file

    Refused while a job, or a model version that came of one, refers to it; and of a job's results, which stay with
    the job.
    """
    if job_id := job_of_result(file_id):
        _measured(job_id)
        raise Conflict("a job's results stay with it: there is nothing to delete", code="results_stay")
    current_services().dataset_changes.delete(current_principal(), file_id)
    return {**DELETED, "id": file_id}


def _measured(job_id: str) -> tuple[FineTuningJob, MetricCurve]:
    """Of a job that has succeeded; of others there is no file."""
    records, principal = current_services().job_records, current_principal()
    try:
        job = records.get(principal, job_id, "train")
    except NotFound:
        job = None
    if job is None or job.state is not JobState.SUCCEEDED:
        raise NotFound("there is no such file in this project", code="file_not_found")
    return job, records.metrics(principal, job_id, points=MOST_RESULT_ROWS)
