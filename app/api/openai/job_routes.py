"""Fine-tuning jobs, as OpenAI's clients know them."""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import request

from app.api.openai.job_schemas import (
    CheckpointListSchema,
    JobBodySchema,
    OpenAIEventListSchema,
    OpenAIJobListSchema,
    OpenAIJobQuerySchema,
    OpenAIJobSchema,
    OpenAIPageSchema,
    config_of,
    hyperparameters_of,
)
from app.api.openai.jobs import checkpoint_shape, event_id, event_shape, job_shape
from app.core.entities.identity import Role
from app.core.entities.jobs import FineTuningJob
from app.core.entities.tuning import TuningRequest
from app.core.errors import unknown_page
from app.extensions import current_services
from app.gateway.authentication import current_principal, require
from app.gateway.idempotency import creates
from app.gateway.openapi import OpenAIBlueprint

blueprint = OpenAIBlueprint(
    "openai_jobs", __name__, url_prefix="/v1/fine_tuning/jobs", description="OpenAI's dialect: fine-tuning jobs"
)

RETRIED_WITHIN = timedelta(minutes=10)  # the official client gives up long before

BODY = {
    "model": "smollm2-135m-instruct",
    "training_file": "ds-0123456789abcdef01234567",
    "suffix": "support",
    "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}},
}
HYPERPARAMETERS = {"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 1.0}
JOB: dict[str, Any] = {
    "id": "ftjob-0123456789abcdef01234567",
    "object": "fine_tuning.job",
    "created_at": 1795253400,
    "finished_at": None,
    "estimated_finish": None,
    "model": "smollm2-135m-instruct",
    "fine_tuned_model": None,
    "organization_id": "default",
    "status": "validating_files",
    "training_file": "ds-0123456789abcdef01234567",
    "validation_file": None,
    "hyperparameters": HYPERPARAMETERS,
    "method": {"type": "supervised", "supervised": {"hyperparameters": HYPERPARAMETERS}},
    "seed": 42,
    "trained_tokens": None,
    "result_files": [],
    "error": None,
    "integrations": [],
    "metadata": {},
}
EVENT = {
    "id": "ftevent-0123456789abcdef01234567-7",
    "object": "fine_tuning.job.event",
    "created_at": 1795253460,
    "level": "info",
    "message": "step 40 of 180",
    "type": "metrics",
    "data": {"step": 40, "total_steps": 180, "train_loss": 0.83},
}
CHECKPOINT = {
    "id": "ftckpt-0123456789abcdef01234567-60",
    "object": "fine_tuning.job.checkpoint",
    "created_at": 1795253460,
    "fine_tuned_model_checkpoint": "ft:smollm2-135m-instruct:default:support:0123456789abcdef:ckpt-step-60",
    "fine_tuning_job_id": JOB["id"],
    "step_number": 60,
    "metrics": {"step": 60, "train_loss": 0.83, "full_valid_loss": 0.9},
}


@blueprint.post("")
@require(Role.DEVELOPER)
@creates()
@blueprint.arguments(JobBodySchema, example=BODY)
@blueprint.response(200, OpenAIJobSchema, example=JOB)
@blueprint.errors(400, 404, 413)
def create_job(body: dict[str, Any]) -> dict[str, Any]:
    """Start a fine-tuning job

    As OpenAI's; keys of this service's training config, `priority` and `queue` stand beside (the client's
    `extra_body`). What is left out, or `auto`, comes from the service's `train_config.yaml`. A request that the
    client sends again (`x-stainless-retry-count`) makes no second job. `docs/openai.md` says what differs.
    """
    principal, now = current_principal(), datetime.now(UTC)
    again = request.headers.get("x-stainless-retry-count", "0") != "0"
    asked = TuningRequest(
        model=body["model"],
        training_file=body["training_file"],
        validation_file=body.get("validation_file"),
        config=config_of(body),
        learning_rate_multiplier=hyperparameters_of(body).get("learning_rate_multiplier"),
        key=hashlib.sha256(principal.user_id.encode() + b"\n" + request.get_data(cache=True)).hexdigest(),
        since=now - RETRIED_WITHIN if again else now,
        is_retry=again,
        metadata=body["metadata"],
        priority=body["priority"],
        queue=body["queue"],
    )
    return _shape(current_services().tuning.create(principal, asked))


@blueprint.get("")
@require(Role.VIEWER)
@blueprint.arguments(OpenAIJobQuerySchema, location="query", unknown=None)
@blueprint.response(200, OpenAIJobListSchema, example={"object": "list", "data": [JOB], "has_more": False})
@blueprint.errors(422)
def list_jobs(query: dict[str, Any]) -> dict[str, Any]:
    """List jobs, newest first; `metadata[key]=value` chooses

    Those of the project, also those sent to `/api/v1/train`. Of several `metadata` a job has to have all; 400 for
    any other parameter, and for an `after` that is no job of the project.
    """
    page = current_services().job_records.list(current_principal(), kind="train", **query)
    return {"object": "list", "data": [_shape(job) for job in page.jobs], "has_more": page.next is not None}


@blueprint.get("/<job_id>")
@require(Role.VIEWER)
@blueprint.response(200, OpenAIJobSchema, example=JOB)
@blueprint.errors(404)
def show_job(job_id: str) -> dict[str, Any]:
    """See how far a job is

    `fine_tuned_model` is null until it has published one, and `error` says why one failed. 404 `job_not_found`,
    for another project's too.
    """
    return _shape(current_services().job_records.get(current_principal(), job_id, "train"))


@blueprint.post("/<job_id>/cancel")
@require(Role.DEVELOPER)
@blueprint.response(200, OpenAIJobSchema, example=JOB)
@blueprint.errors(404, 409)
def cancel_job(job_id: str) -> dict[str, Any]:
    """Cancel a job; one that trains ends at its next step

    One that waits is cancelled at once. Asking again is no error; 409 `job_is_final` once it has succeeded or
    failed.
    """
    return _shape(current_services().jobs.cancel(current_principal(), job_id, "train"))


@blueprint.post("/<job_id>/pause")
@require(Role.DEVELOPER)
@blueprint.response(200, OpenAIJobSchema, example={**JOB, "status": "pausing"})
@blueprint.errors(404, 409)
def pause_job(job_id: str) -> dict[str, Any]:
    """Pause a job; one that trains leaves a checkpoint after its next step

    Until then it is `pausing`; one that is queued is paused at once. Asking again is no error; 409 while its files
    are validated, and once it has ended.
    """
    return _shape(current_services().jobs.pause(current_principal(), job_id, "train"))


@blueprint.post("/<job_id>/resume")
@require(Role.DEVELOPER)
@blueprint.response(200, OpenAIJobSchema, example={**JOB, "status": "queued"})
@blueprint.errors(404, 409)
def resume_job(job_id: str) -> dict[str, Any]:
    """Resume a paused job, from its checkpoint

    It is queued again, and whatever worker takes it goes on from there. 409 unless it is paused.
    """
    return _shape(current_services().jobs.resume(current_principal(), job_id, "train"))


@blueprint.get("/<job_id>/events")
@require(Role.VIEWER)
@blueprint.arguments(OpenAIPageSchema, location="query")
@blueprint.response(200, OpenAIEventListSchema, example={"object": "list", "data": [EVENT], "has_more": False})
@blueprint.errors(404, 422)
def list_events(query: dict[str, Any], job_id: str) -> dict[str, Any]:
    """Read what a job has said and measured, newest first

    Pages go back in time: `after` is the last id of the page before, and 400 says that it is none of this job.
    """
    records, principal, limit = current_services().job_records, current_principal(), query["limit"]
    before = None
    if query["after"] is not None:
        number = re.fullmatch(r".*-([0-9]{1,9})", query["after"])
        if number is None or event_id(job_id, int(number[1])) != query["after"]:
            raise unknown_page("event", query["after"])
        before = int(number[1])
    events = records.latest_events(principal, job_id, before=before, limit=limit + 1)
    shown = [event_shape(job_id, event) for event in events[:limit]]
    return {"object": "list", "data": shown, "has_more": len(events) > limit}


@blueprint.get("/<job_id>/checkpoints")
@require(Role.VIEWER)
@blueprint.arguments(OpenAIPageSchema, location="query")
@blueprint.response(200, CheckpointListSchema, example={"object": "list", "data": [CHECKPOINT], "has_more": False})
@blueprint.errors(404, 422)
def list_checkpoints(query: dict[str, Any], job_id: str) -> dict[str, Any]:
    """List the checkpoints that a job has left and that are kept, newest first

    An empty list says that it keeps none, or that the web process does not see its workers' `results/`. No engine
    serves a checkpoint: it is there to go on from.
    """
    services, principal = current_services(), current_principal()
    job = services.job_records.get(principal, job_id, "train")
    found = [checkpoint_shape(job, saved) for saved in services.tuning.checkpoints(principal, job_id)]
    if query["after"] is not None:
        places = [place for place, one in enumerate(found) if one["id"] == query["after"]]
        if not places:
            raise unknown_page("checkpoint", query["after"])
        found = found[places[0] + 1 :]
    shown = found[: query["limit"]]
    ends = {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
    return {"object": "list", "data": shown, **ends, "has_more": len(found) > len(shown)}


def _shape(job: FineTuningJob) -> dict[str, Any]:
    tuning = current_services().tuning
    return job_shape(job, tuning.fine_tuned_model(job), tuning.multiplier(job))
