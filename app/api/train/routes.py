"""Fine-tuning jobs."""

from functools import partial
from typing import Any

from flask import Response

from app.api.jobs.event_stream import event_frames
from app.api.jobs.routes import JOB as ANY_JOB
from app.api.jobs.schemas import (
    AnyJobSchema,
    EventListSchema,
    EventQuerySchema,
    JobQuerySchema,
    PreferSchema,
    ResumeSchema,
    StreamQuerySchema,
)
from app.api.jobs.waiting import TAKES_LONGER, accepted
from app.api.train.metric_columns import metric_columns
from app.api.train.schemas import (
    NAMED,
    AcceptedSchema,
    EstimateSchema,
    JobListSchema,
    JobSchema,
    MetricsQuerySchema,
    MetricsSchema,
    TrainSchema,
)
from app.core.entities.identity import Role
from app.core.entities.jobs import FineTuningJob, JobPage
from app.extensions import current_services
from app.gateway.authentication import current_principal, require
from app.gateway.idempotency import creates
from app.gateway.openapi import Blueprint
from app.gateway.streams import current_streams

blueprint = Blueprint("train", __name__, url_prefix="/api/v1/train", description="Fine-tuning jobs")

EXAMPLE = {
    "dataset_path": "data/raw/sample_data.json",
    "base_model": "smollm2-135m-instruct",
    "config": {"num_epochs": 3, "learning_rate": 0.001, "lora": {"r": 8}},
}

ACCEPTED = {
    "task_id": "ftjob-0123456789abcdef01234567",
    "status": "validating_files",
    "name": "support-assistant",
    "base_model": "smollm2-135m-instruct",
    "created_at": "2026-11-22T09:30:00+00:00",
}
ESTIMATE = {
    "steps": 180,
    "input_tokens": 153828,
    "trained_tokens": 43059,
    "seconds": 290.0,
    "peak_memory_bytes": 2100000000,
    "disk_bytes": 163000000,
    "device": "cpu",
    "available_bytes": 12000000000,
    "fits": True,
    "suggestion": None,
}
JOB = {
    **ACCEPTED,
    "status": "running",
    "step": 40,
    "total_steps": 180,
    "loss": 0.83,
    "learning_rate": 0.00092,
    "tokens_per_second": 512.0,
    "eta_seconds": 210.0,
    "error": None,
}
EVENT = {
    "seq": 7,
    "type": "metrics",
    "level": "info",
    "message": "step 40 of 180",
    "created_at": "2026-11-22T09:32:10+00:00",
    "data": {"step": 40, "loss": 0.83},
}
METRICS = {
    "events": 180,
    "width": 128,
    "names": ["loss"],
    "first_steps": [1, 128],
    "steps": [127, 180],
    "series": {
        "loss": {"mean": [1.1, 0.52], "min": [0.61, 0.31], "max": [2.9, 0.8], "known": [127, 53], "nulls": [0, 0]}
    },
}
END = ("task_id", "status", "error", "model_version_id")
STREAM = """id: 7
event: metrics
data: {"seq": 7, "type": "metrics", "level": "info", "message": "step 40 of 180", "data": {"step": 40}}

event: end
data: {"task_id": "ftjob-0123456789abcdef01234567", "status": "succeeded", "error": null}

"""


@blueprint.post("")
@require(Role.DEVELOPER)
@creates()
@blueprint.arguments(TrainSchema, example=EXAMPLE)
@blueprint.response(202, AcceptedSchema, example=ACCEPTED)
@blueprint.errors(400, 404, 413)
def submit(body: dict[str, Any]) -> FineTuningJob:
    """Start a fine-tuning job

    What `config` leaves out comes from the service's `train_config.yaml`; its keys may stand under `model` as
    well, and LoRA's at the top. `output_dir` cannot be set here. A request with faults starts nothing, and the
    answer lists all of them. 429 `too_many_jobs`: as many jobs of the project wait as may.
    """
    where = {name: body[name] for name in ("priority", "queue", "after")}
    return current_services().training.submit(current_principal(), _overrides(body), **where)


@blueprint.post("/estimate")
@require(Role.DEVELOPER)
@blueprint.arguments(PreferSchema, location="headers")
@blueprint.arguments(TrainSchema, example=EXAMPLE)
@blueprint.response(200, EstimateSchema, example=ESTIMATE)
@blueprint.alt_response(
    202, schema=AnyJobSchema, description=TAKES_LONGER, example={**ANY_JOB, "kind": "estimate"}
)
@blueprint.errors(400, 413, 503)
def estimate(headers: dict[str, Any], body: dict[str, Any]) -> Any:
    """Ask what a job would take, before it is sent

    Takes the body of `POST /api/v1/train` and trains nothing. A worker measures a few steps the first time, which
    takes seconds, a minute at most for a large model; the same question again is answered at once. What is not
    there within ten seconds (`Prefer: wait=N` for up to 30) is 202 with a job of kind `estimate`: its `result` is
    the answer, and it is kept for a day. Early stopping is not foreseen.
    """
    services, principal = current_services(), current_principal()
    job = services.training.submit_estimate(principal, _overrides(body))
    job = services.job_records.wait(principal, job.id, headers["wait"])
    found = services.training.estimate_of(job)
    return accepted(job) if found is None else found


@blueprint.get("")
@require(Role.VIEWER)
@blueprint.arguments(JobQuerySchema, location="query")
@blueprint.response(200, JobListSchema, example={"data": [JOB], "next": None})
@blueprint.errors()
def list_jobs(query: dict[str, Any]) -> JobPage:
    """List jobs, newest first

    Those of the project, in any state unless `status` names one; also those sent to `/v1/fine_tuning/jobs`. 422
    for an `after` that is no job of it.
    """
    return current_services().job_records.list(current_principal(), kind="train", **query)


@blueprint.get("/status/<task_id>")
@require(Role.VIEWER)
@blueprint.response(200, JobSchema, example=JOB)
@blueprint.errors(404)
def status(task_id: str) -> FineTuningJob:
    """See how far a job is

    Its state, the step and the figures of its last report, and its whole config. `error` says why one failed, with
    every fault; `model_version_id` what it published. 404 `job_not_found`, for another project's too.
    """
    return current_services().job_records.get(current_principal(), task_id, "train")


@blueprint.post("/<task_id>/cancel")
@require(Role.DEVELOPER)
@blueprint.response(200, JobSchema, example=JOB)
@blueprint.errors(404, 409)
def cancel(task_id: str) -> FineTuningJob:
    """Cancel a job

    One that trains ends at its next step; `cancel_requested` says that it has been asked to. Asking again is no
    error.
    """
    return current_services().jobs.cancel(current_principal(), task_id, "train")


@blueprint.post("/<task_id>/pause")
@require(Role.DEVELOPER)
@blueprint.response(200, JobSchema, example={**JOB, "status": "pausing"})
@blueprint.errors(404, 409)
def pause(task_id: str) -> FineTuningJob:
    """Pause a job

    One that is queued is paused at once; one that trains is `pausing` until it has left a checkpoint after its
    next step. Asking again is no error; 409 while its files are validated, and once it has ended.
    """
    return current_services().jobs.pause(current_principal(), task_id, "train")


@blueprint.post("/<task_id>/resume")
@require(Role.DEVELOPER)
@blueprint.response(200, JobSchema, example={**JOB, "status": "queued"})
@blueprint.errors(404, 409)
def resume(task_id: str) -> FineTuningJob:
    """Resume a paused job

    It is queued again, and goes on from its checkpoint on whatever worker takes it: to the bit where that is like
    the one before, else its events say what differs.
    """
    return current_services().jobs.resume(current_principal(), task_id, "train")


@blueprint.post("/<task_id>/retry")
@require(Role.DEVELOPER)
@creates()
@blueprint.response(202, AcceptedSchema, example=ACCEPTED)
@blueprint.errors(404, 409, 422)
def retry(task_id: str) -> FineTuningJob:
    """Try a job again

    A new job that asks for what this one asked for, from the start; its `retry_of` names this one. 409 unless that
    has failed or was cancelled.
    """
    return current_services().jobs.retry(current_principal(), task_id, "train")


@blueprint.get("/<task_id>/events")
@require(Role.VIEWER)
@blueprint.arguments(EventQuerySchema, location="query")
@blueprint.response(200, EventListSchema, example={"data": [EVENT]})
@blueprint.errors(404)
def events(query: dict[str, Any], task_id: str) -> dict[str, Any]:
    """Read what a job has said and measured, in order

    Those with a `seq` above `after`, messages and figures alike. An empty list says that there is nothing newer.
    `GET …/events/stream` sends them as they come.
    """
    return {"data": current_services().job_records.events(current_principal(), task_id, "train", **query)}


@blueprint.get("/<task_id>/events/stream")
@require(Role.VIEWER)
@blueprint.arguments(ResumeSchema, location="headers")
@blueprint.arguments(StreamQuerySchema, location="query")
@blueprint.response(200, content_type="text/event-stream", example=STREAM)
@blueprint.errors(404, 503)
def event_stream(headers: dict[str, Any], query: dict[str, Any], task_id: str) -> Response:
    """Hear what a job says and measures, as it comes

    Server-sent events: `id` is an event's `seq`, `event` its type, `data` the event as `GET …/events` shows it. A
    client that comes back with `Last-Event-ID` misses nothing and hears nothing twice. When the job has ended the
    last event is `end`, with its status, and the client closes. A stream ends after five minutes, and when the
    service stops: come back. 503 with `Retry-After` says that too many are open.
    """
    records, principal = current_services().job_records, current_principal()
    records.get(principal, task_id, "train")
    after = query["after"] if headers["after"] is None else headers["after"]
    return current_streams().follow(partial(event_frames, records, principal, task_id, JobSchema(only=END), after))


@blueprint.get("/<task_id>/metrics")
@require(Role.VIEWER)
@blueprint.arguments(MetricsQuerySchema, location="query")
@blueprint.response(200, MetricsSchema, example=METRICS)
@blueprint.errors(404)
def metrics(query: dict[str, Any], task_id: str) -> dict[str, Any]:
    """Draw what a job has measured

    A curve of the whole run so far, however long it is, in columns. A point sums up `width` steps: mean, and `min`
    and `max`, so that no spike is lost. Where an attempt went on from a checkpoint and did steps again, they count
    as it did them.
    """
    curve = current_services().job_records.metrics(current_principal(), task_id, "train", points=query["points"])
    return metric_columns(curve, query["names"])


def _overrides(body: dict[str, Any]) -> dict[str, Any]:
    named = {key: value for key in NAMED if (value := body.get(key)) is not None}
    return {**body["config"], **named}
