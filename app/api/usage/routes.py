"""What the project's requests to models used."""

from typing import Any

from app.api.usage.schemas import UsageListSchema, UsageQuerySchema
from app.core.entities.identity import Role
from app.core.entities.usage import UsagePage
from app.extensions import current_services
from app.gateway.authentication import current_principal, require
from app.gateway.openapi import Blueprint

blueprint = Blueprint("usage", __name__, url_prefix="/api/v1/usage", description="What requests used")

SUM = {
    "key": "support-assistant:1",
    "requests": 1204,
    "failed": 3,
    "prompt_tokens": 59_310,
    "completion_tokens": 21_877,
    "mean_seconds": 0.84,
    "mean_first_token_seconds": 0.09,
}


@blueprint.get("")
@require(Role.DEVELOPER)
@blueprint.arguments(UsageQuerySchema, location="query")
@blueprint.response(200, UsageListSchema, example={"data": [SUM], "next": None})
@blueprint.errors(503)
def sums(query: dict[str, Any]) -> UsagePage:
    """Sum up what requests used, by model or by day

    Each request that a model was found for counts, within a second of its end. Days are UTC's, the newest first.
    """
    return current_services().usage.sums(current_principal(), **query)
