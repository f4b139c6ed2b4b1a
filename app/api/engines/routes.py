"""The engines, and which adapters they hold."""

from typing import Any

from app.api.engines.schemas import AdapterBodySchema, EngineListSchema, LoadedAdapterSchema
from app.core.entities.identity import Role
from app.core.entities.models import ModelVersion
from app.extensions import current_services
from app.gateway.authentication import current_principal, require
from app.gateway.openapi import Blueprint

blueprint = Blueprint("engines", __name__, url_prefix="/api/v1/engines", description="Engines and their adapters")

ENGINE = {
    "base_model": "smollm2-135m-instruct",
    "resident": True,
    "kind": "ours",
    "context": 8192,
    "adapters": [{"reference": "support-assistant:1", "bytes": 4_900_000, "pinned": True}],
    "others": 2,
    "other_bytes": 9_800_000,
}


@blueprint.get("")
@require(Role.OPERATOR)
@blueprint.response(200, EngineListSchema, example={"data": [ENGINE]})
@blueprint.errors(503)
def list_engines() -> dict[str, Any]:
    """List the engines and the adapters in their memory

    The project's adapters by reference; of other projects', how many there are and what they take.
    """
    return {"data": current_services().engines.engines(current_principal())}


@blueprint.put("/<base_model>/adapters/<reference>")
@require(Role.OPERATOR)
@blueprint.arguments(AdapterBodySchema, example={"pinned": True})
@blueprint.response(200, LoadedAdapterSchema, example={"reference": "support-assistant:1", "pinned": True})
@blueprint.errors(400, 404, 503)
def load_adapter(body: dict[str, Any], base_model: str, reference: str) -> ModelVersion:
    """Load a version's adapter, and pin it or not

    One that is pinned is never evicted, and an engine that has been restarted gets it again, pinned, with the
    first request for it. Without this too an adapter is loaded with its first request; it goes when others need
    the room.
    """
    return current_services().engines.load(current_principal(), base_model, reference, **body)


@blueprint.delete("/<base_model>/adapters/<reference>")
@require(Role.OPERATOR)
@blueprint.response(204)
@blueprint.errors(404, 422, 503)
def unload_adapter(base_model: str, reference: str) -> None:
    """Unload a version's adapter, pinned or not

    Answers that are under way go on to their end, and the next request for it loads it again.
    """
    current_services().engines.unload(current_principal(), base_model, reference)
