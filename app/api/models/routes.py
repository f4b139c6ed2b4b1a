"""Published models."""

from typing import Any

from app.api.models.schemas import (
    AliasBodySchema,
    ModelAliasListSchema,
    ModelAliasSchema,
    ModelListSchema,
    ModelSchema,
    ModelVersionListSchema,
)
from app.core.entities.identity import Role
from app.core.entities.models import ModelAlias, ModelSummary
from app.extensions import current_services
from app.gateway.authentication import current_principal, require
from app.gateway.openapi import Blueprint

blueprint = Blueprint("models", __name__, url_prefix="/api/v1/models", description="Published models")

MODEL = {
    "name": "support-assistant",
    "base_model": "smollm2-135m-instruct",
    "versions": 1,
    "latest": 1,
    "updated_at": "2026-11-22T09:41:07+00:00",
    "metrics": {"eval_loss": 0.21},
}
VERSION = {
    "reference": "support-assistant:1",
    "name": "support-assistant",
    "number": 1,
    "base_model": "smollm2-135m-instruct",
    "job_id": "ftjob-0123456789abcdef01234567",
    "metrics": {"eval_loss": 0.21},
    "created_at": "2026-11-22T09:41:07+00:00",
    "pinned": False,
    "servable": {"ours": True, "vllm": True, "other": "its engine is neither this service's nor vLLM …"},
}
ALIAS = {
    "alias": "champion",
    "reference": "support-assistant@champion",
    "weights": {"1": 90, "2": 10},
    "set_by": "user-0123",
    "set_at": "2026-11-24T09:30:00+00:00",
}


@blueprint.get("")
@require(Role.VIEWER)
@blueprint.response(200, ModelListSchema, example={"data": [MODEL]})
@blueprint.errors()
def list_models() -> dict[str, Any]:
    """List the project's models, by name

    Each with how many versions it has, and the base model and the metrics of the newest. One whose versions have
    all been deleted is left out. Base models are no project's: `GET /v1/models` lists those that answer.
    """
    return {"data": current_services().models.models(current_principal())}


@blueprint.get("/<name>")
@require(Role.VIEWER)
@blueprint.response(200, ModelSchema, example=MODEL)
@blueprint.errors(404)
def show_model(name: str) -> ModelSummary:
    """Show one model

    As it stands in the list. 404 `model_not_found`, also where all of its versions have been deleted.
    """
    return current_services().models.model(current_principal(), name)


@blueprint.get("/<name>/versions")
@require(Role.VIEWER)
@blueprint.response(200, ModelVersionListSchema, example={"data": [VERSION]})
@blueprint.errors(404)
def list_versions(name: str) -> dict[str, Any]:
    """List a model's versions, newest first

    All but those that have been deleted, whose numbers are not given again. `servable` says which kinds of engine
    can answer with it, and why another cannot.
    """
    return {"data": current_services().models.versions(current_principal(), name)}


@blueprint.delete("/<name>/versions/<number>")
@require(Role.ADMIN)
@blueprint.response(204)
@blueprint.errors(404, 409, 422)
def delete_version(name: str, number: str) -> None:
    """Delete a version, with its files

    For good: its number is not given again. Refused while an alias carries it; a job that is to train on from it
    fails.
    """
    current_services().models.delete(current_principal(), f"{name}:{number}")


@blueprint.get("/<name>/aliases")
@require(Role.VIEWER)
@blueprint.response(200, ModelAliasListSchema, example={"data": [ALIAS]})
@blueprint.errors(404)
def list_aliases(name: str) -> dict[str, Any]:
    """List a model's aliases, by name

    Each with the versions that it carries and their weights, and who set it. An empty list says that there is
    none: a bare `name` stands for the newest version.
    """
    return {"data": current_services().model_aliases.aliases(current_principal(), name)}


@blueprint.put("/<name>/aliases/<alias>")
@require(Role.DEVELOPER)
@blueprint.arguments(AliasBodySchema, example={"weights": {"1": 90, "2": 10}})
@blueprint.response(200, ModelAliasSchema, example=ALIAS)
@blueprint.errors(400, 404)
def set_alias(body: dict[str, Any], name: str, alias: str) -> ModelAlias:
    """Have an alias name a version, or split it between several

    `name@alias` then stands for it; a bare `name` for the alias `champion`, else for the newest version. Of
    several versions one is drawn by weight, and a conversation stays with one while the weights stay.
    """
    weights = body["weights"] if "weights" in body else {body["version"]: 1}
    shares = {int(number): weight for number, weight in weights.items()}
    return current_services().model_aliases.set_alias(current_principal(), name, alias, shares)


@blueprint.delete("/<name>/aliases/<alias>")
@require(Role.DEVELOPER)
@blueprint.response(204)
@blueprint.errors(404)
def remove_alias(name: str, alias: str) -> None:
    """Remove an alias; the versions stay

    `name@alias` names nothing any more; without `champion`, a bare `name` stands for the newest version. 404
    `alias_not_found`.
    """
    current_services().model_aliases.remove_alias(current_principal(), name, alias)
