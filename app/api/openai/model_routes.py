"""Models, by OpenAI's names."""

from typing import Any

import marshmallow as ma

from app.api.openai.file_schemas import DeletedSchema
from app.core.entities.identity import Role
from app.core.entities.served_models import ServedModel
from app.extensions import current_services
from app.gateway.authentication import current_principal, require
from app.gateway.openapi import OpenAIBlueprint

blueprint = OpenAIBlueprint(
    "openai_models", __name__, url_prefix="/v1/models", description="OpenAI's dialect: models"
)

OWNED_BY_ALL = "system"  # as OpenAI says of its own models
BASE = {"id": "smollm2-135m-instruct", "object": "model", "created": 0, "owned_by": OWNED_BY_ALL}
MODEL = {
    "id": "ft:smollm2-135m-instruct:default:support-assistant:1",
    "object": "model",
    "created": 1795253400,
    "owned_by": "default",
}


class OpenAIModelSchema(ma.Schema):
    id = ma.fields.String()
    object = ma.fields.String(metadata={"enum": ["model"]})
    created = ma.fields.Integer(metadata={"description": "seconds since 1970; 0 of a base model"})
    owned_by = ma.fields.String(metadata={"description": "the project, or `system`"})


class OpenAIModelListSchema(ma.Schema):
    object = ma.fields.String(metadata={"enum": ["list"]})
    data = ma.fields.List(ma.fields.Nested(OpenAIModelSchema))


@blueprint.get("")
@require(Role.VIEWER)
@blueprint.response(200, OpenAIModelListSchema, example={"object": "list", "data": [BASE, MODEL]})
@blueprint.errors()
def list_models() -> dict[str, Any]:
    """List what may answer: the base models that engines serve, and the project's versions

    First the base models, then the versions by name, of each name the newest first, as `ft:…`. A base model whose
    engine does not answer is left out.
    """
    models = current_services().served_models.list(current_principal())
    return {"object": "list", "data": [_shape(model) for model in models]}


@blueprint.get("/<path:model>")
@require(Role.VIEWER)
@blueprint.response(200, OpenAIModelSchema, example=MODEL)
@blueprint.errors(400, 404)
def show_model(model: str) -> dict[str, Any]:
    """Show one; by an old name, what stands for it

    By its `ft:` name, as `name`, `name:3` or `name@alias`, or a base model. 404 `model_not_found`, also for a base
    model that no engine serves; 400 `split_alias` for a name that stands for several versions.
    """
    return _shape(current_services().served_models.find(current_principal(), model))


@blueprint.delete("/<path:model>")
@require(Role.ADMIN)
@blueprint.response(200, DeletedSchema, example={"id": MODEL["id"], "object": "model", "deleted": True})
@blueprint.errors(400, 404, 409)
def delete_model(model: str) -> dict[str, Any]:
    """Delete a version of the project, by its `ft:` name or as `name:3`

    For good: its number is not given again. Refused while an alias carries it, and of base models.
    """
    services, principal = current_services(), current_principal()
    services.models.delete(principal, services.served_models.reference(principal, model))
    return {"id": model, "object": "model", "deleted": True}


def _shape(model: ServedModel) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": int(model.created_at.timestamp()) if model.created_at else 0,
        "owned_by": model.project_id or OWNED_BY_ALL,
    }
