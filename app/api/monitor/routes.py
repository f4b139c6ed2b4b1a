"""Probes: open, so that an orchestrator needs no token."""

from app.api.monitor.schemas import HealthSchema, ReadinessSchema
from app.core.services.monitoring import Readiness
from app.extensions import current_services
from app.gateway.openapi import Blueprint

blueprint = Blueprint("monitor", __name__, url_prefix="/api/v1/monitor", description="Probes")


@blueprint.get("/health")
@blueprint.response(200, HealthSchema, example={"status": "ok"})
def health() -> dict[str, str]:
    """Whether this process answers"""
    return {"status": "ok"}


@blueprint.get("/ready")
@blueprint.response(
    200, ReadinessSchema, example={"ready": True, "reasons": [], "engines": ["smollm2-135m-instruct"]}
)
@blueprint.alt_response(503, schema=ReadinessSchema, description="Not ready; the reasons say what to do")
def ready() -> tuple[Readiness, int]:
    """Whether the service can do its work"""
    readiness = current_services().monitoring.ready()
    return readiness, 200 if readiness.ready else 503
