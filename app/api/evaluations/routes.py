"""Evaluations: a model's answers to held-out questions, scored."""

from typing import Any

from app.api.evaluations.schemas import EvaluationSchema
from app.api.jobs.routes import JOB
from app.api.jobs.schemas import AnyJobSchema
from app.core.entities.identity import Role
from app.core.entities.jobs import FineTuningJob
from app.extensions import current_services
from app.gateway.authentication import current_principal, require
from app.gateway.idempotency import creates
from app.gateway.openapi import Blueprint

blueprint = Blueprint("evaluations", __name__, url_prefix="/api/v1/evaluations", description="Evaluations")

BODY = {"model": "support:3", "dataset_id": "ds-0123456789abcdef01234567", "split": "test"}
QUEUED = {
    **JOB,
    "id": "eval-0123456789abcdef01234567",
    "kind": "evaluate",
    "status": "queued",
    "name": "support:3 on ds-0123456789abcdef01234567:1",
    "base_model": "smollm2-135m-instruct",
    "config": {**BODY, "dataset_id": "ds-0123456789abcdef01234567:1"},
    "step": 0,
    "total_steps": None,
    "attempts": 0,
    "started_at": None,
}


@blueprint.post("")
@require(Role.DEVELOPER)
@creates()
@blueprint.arguments(EvaluationSchema, example=BODY)
@blueprint.response(202, AnyJobSchema, example=QUEUED)
@blueprint.errors(400, 404, 413)
def submit(body: dict[str, Any]) -> FineTuningJob:
    """Score a model on the held-out questions of a dataset

    A job of kind `evaluate` asks the questions of the split whose rows have `keys`, the figures and names that a
    right answer states, and counts the answers that state them. `GET /api/v1/jobs/{job_id}` shows the scores in
    `result` once it has succeeded, over all and by group and category, and the first thousand answers.
    """
    where = {name: body.pop(name) for name in ("priority", "queue", "after")}
    return current_services().jobs.submit(current_principal(), "evaluate", body, **where)
