"""Jobs of every kind."""

from functools import partial
from typing import Any

from flask import Response

from app.api.jobs.event_stream import event_frames
from app.api.jobs.schemas import (
    AnyJobListSchema,
    AnyJobQuerySchema,
    AnyJobSchema,
    ChainJobsSchema,
    ChainSchema,
    EventListSchema,
    EventQuerySchema,
    ResumeSchema,
    StreamQuerySchema,
)
from app.core.entities.identity import Role, Scope
from app.core.entities.jobs import FineTuningJob, JobPage, Step
from app.core.errors import Forbidden
from app.extensions import current_services
from app.gateway.authentication import current_principal, require
from app.gateway.idempotency import creates
from app.gateway.openapi import Blueprint
from app.gateway.streams import current_streams

blueprint = Blueprint("jobs", __name__, url_prefix="/api/v1/jobs", description="Jobs of every kind")

# A key that is held to a part of the service submits no job of another part.
SCOPES = {"process": Scope.DATASETS, "inspect": Scope.DATASETS}

JOB: dict[str, Any] = {
    "id": "process-0123456789abcdef01234567",
    "kind": "process",
    "status": "running",
    "name": "ds-0123456789abcdef01234567:1",
    "base_model": "",
    "dataset_id": "ds-0123456789abcdef01234567",
    "dataset_number": 1,
    "config": {"dataset_id": "ds-0123456789abcdef01234567:1", "config": {"steps": ["clean", "split"]}},
    "after": [],
    "step": 400,
    "total_steps": 1000,
    "result": {},
    "made": [],
    "error": None,
    "cancel_requested": False,
    "attempts": 1,
    "lost": 0,
    "priority": 0,
    "queue": "default",
    "retry_of": None,
    "created_by": "user-0123",
    "created_at": "2026-11-22T09:30:00+00:00",
    "started_at": "2026-11-22T09:30:01+00:00",
    "finished_at": None,
}
EVENT = {
    "seq": 7,
    "type": "metrics",
    "level": "info",
    "message": "step 400 of 1000",
    "created_at": "2026-11-22T09:32:10+00:00",
    "data": {"step": 400, "total_steps": 1000},
}
CHAIN = {
    "jobs": [
        {"name": "clean", "kind": "process", "request": {"dataset_id": "ds-0123456789abcdef01234567"}},
        {"name": "tune", "kind": "train", "request": {"dataset_id": "$clean", "model_name": "support"}},
        {"name": "score", "kind": "evaluate", "request": {"model": "$tune", "dataset_id": "$clean"}},
    ]
}
END = ("id", "status", "error", "made")
STREAM = """id: 7
event: metrics
data: {"seq": 7, "type": "metrics", "level": "info", "message": "step 400 of 1000", "data": {"step": 400}}

event: end
data: {"id": "process-0123456789abcdef01234567", "status": "succeeded", "error": null, "made": ["ds-0123:2"]}

"""


@blueprint.post("")
@require(Role.DEVELOPER)
@creates()
@blueprint.arguments(ChainSchema, example=CHAIN)
@blueprint.response(202, ChainJobsSchema, example={"data": [JOB]})
@blueprint.errors(400, 404, 409, 413)
def submit_chain(body: dict[str, Any]) -> dict[str, Any]:
    """Submit jobs that go on with what others make

    All of them or none, in order: a step may name the steps before it. A value `$name` in a step's request is the
    version that the step of that name makes; the step waits until it is there. When one fails or is cancelled,
    those that wait for it are cancelled (`dependency_failed`). A request with faults starts nothing, and the
    answer lists all of them.
    """
    principal = current_principal()
    steps = [Step(**step) for step in body["jobs"]]
    for step in steps:
        scope = SCOPES.get(step.kind, Scope.TRAIN)
        if not principal.may_use(scope):
            raise Forbidden(f"jobs of kind {step.kind} need the scope {scope.value}", code="scope_missing")
    where = {"priority": body["priority"], "queue": body["queue"]}
    return {"data": current_services().jobs.submit_chain(principal, steps, **where)}


@blueprint.get("")
@require(Role.VIEWER)
@blueprint.arguments(AnyJobQuerySchema, location="query")
@blueprint.response(200, AnyJobListSchema, example={"data": [JOB], "next": None})
@blueprint.errors()
def list_jobs(query: dict[str, Any]) -> JobPage:
    """List jobs of every kind, newest first

    Those of the project; `kind` and `status` narrow the list. Jobs of kind `estimate` and `inspect` are listed for
    a day after their end. 422 for an `after` that is no job of the project.
    """
    return current_services().job_records.list(current_principal(), **query)


@blueprint.get("/<job_id>")
@require(Role.VIEWER)
@blueprint.response(200, AnyJobSchema, example=JOB)
@blueprint.errors(404)
def show(job_id: str) -> FineTuningJob:
    """See how far a job is, or what it came to

    `result` is what its kind says of a job that has succeeded, `made` names the versions that it published, and
    `error` says why one failed. 404 `job_not_found`, for another project's too.
    """
    return current_services().job_records.get(current_principal(), job_id)


@blueprint.post("/<job_id>/cancel")
@require(Role.DEVELOPER)
@blueprint.response(200, AnyJobSchema, example=JOB)
@blueprint.errors(404, 409)
def cancel(job_id: str) -> FineTuningJob:
    """Cancel a job of any kind

    One that runs ends within seconds; `cancel_requested` says that it has been asked to. Jobs that wait for it are
    cancelled with it. Asking again is no error.
    """
    return current_services().jobs.cancel(current_principal(), job_id)


@blueprint.post("/<job_id>/pause")
@require(Role.DEVELOPER)
@blueprint.response(200, AnyJobSchema, example=JOB)
@blueprint.errors(404, 409)
def pause(job_id: str) -> FineTuningJob:
    """Pause a job whose kind can go on from where it was

    Training can; of another kind it is 409 `cannot_pause`. Asking again is no error.
    """
    return current_services().jobs.pause(current_principal(), job_id)


@blueprint.post("/<job_id>/resume")
@require(Role.DEVELOPER)
@blueprint.response(200, AnyJobSchema, example={**JOB, "status": "queued"})
@blueprint.errors(404, 409)
def resume(job_id: str) -> FineTuningJob:
    """Resume a paused job of any kind

    It is queued again, and goes on from its checkpoint on whatever worker takes it.
    """
    return current_services().jobs.resume(current_principal(), job_id)


@blueprint.post("/<job_id>/retry")
@require(Role.DEVELOPER)
@creates()
@blueprint.response(202, AnyJobSchema, example={**JOB, "status": "queued"})
@blueprint.errors(404, 409, 422)
def retry(job_id: str) -> FineTuningJob:
    """Try a job of any kind again

    A new job that asks for what this one asked for; its `retry_of` names this one. 409 unless that has failed or
    was cancelled, and for a step of a chain whose first steps made nothing.
    """
    return current_services().jobs.retry(current_principal(), job_id)


@blueprint.get("/<job_id>/events")
@require(Role.VIEWER)
@blueprint.arguments(EventQuerySchema, location="query")
@blueprint.response(200, EventListSchema, example={"data": [EVENT]})
@blueprint.errors(404)
def events(query: dict[str, Any], job_id: str) -> dict[str, Any]:
    """Read what a job of any kind has said, in order

    Those with a `seq` above `after`. An empty list says that there is nothing newer.
    """
    return {"data": current_services().job_records.events(current_principal(), job_id, **query)}


@blueprint.get("/<job_id>/events/stream")
@require(Role.VIEWER)
@blueprint.arguments(ResumeSchema, location="headers")
@blueprint.arguments(StreamQuerySchema, location="query")
@blueprint.response(200, content_type="text/event-stream", example=STREAM)
@blueprint.errors(404, 503)
def event_stream(headers: dict[str, Any], query: dict[str, Any], job_id: str) -> Response:
    """Hear what a job of any kind says, as it comes

    Server-sent events, as `GET /api/v1/train/{task_id}/events/stream` sends them: a client that comes back with
    `Last-Event-ID` misses nothing. The last event is `end`.
    """
    records, principal = current_services().job_records, current_principal()
    records.get(principal, job_id)
    after = query["after"] if headers["after"] is None else headers["after"]
    last = AnyJobSchema(only=END)
    return current_streams().follow(partial(event_frames, records, principal, job_id, last, after))
