"""Probes: open, so that an orchestrator needs no token."""

from app.api.monitor.schemas import HealthSchema, ReadinessSchema
from app.core.interfaces.services.operations import Readiness
from app.extensions import current_services
from app.gateway.openapi import Blueprint

blueprint = Blueprint("monitor", __name__, url_prefix="/api/v1/monitor", description="Probes")


@blueprint.get("/health")
@blueprint.response(200, HealthSchema, example={"status": "ok"})
def health() -> dict[str, str]:
    """Whether this process answers

    It looks at nothing else: `GET /api/v1/monitor/ready` tells whether the service can work. Both are open, and
    not limited.
    """
    return {"status": "ok"}


@blueprint.get("/ready")
@blueprint.response(
    200, ReadinessSchema, example={"ready": True, "reasons": [], "engines": ["smollm2-135m-instruct"]}
)
@blueprint.alt_response(503, schema=ReadinessSchema, description="Not ready; the reasons say what to do")
def ready() -> tuple[Readiness, int]:
    """Whether the service can do its work

    It looks at the database, with its schema, and at the queue; while one of them is wanting the answer is 503,
    with `reasons`. `engines` are the base models that answer: that none does is no reason.
    """
    readiness = current_services().monitoring.ready()
    return readiness, 200 if readiness.ready else 503
