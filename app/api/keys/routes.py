"""API keys."""

from dataclasses import asdict
from typing import Any

from app.api.keys.schemas import KeyListSchema, MadeKeySchema, NewKeySchema
from app.core.entities.identity import Role, Scope
from app.extensions import current_services
from app.gateway.authentication import current_principal, require
from app.gateway.idempotency import creates
from app.gateway.openapi import Blueprint

blueprint = Blueprint("keys", __name__, url_prefix="/api/v1/keys", description="API keys")

KEY = {
    "id": "key-0123456789abcdef01234567",
    "name": "laptop",
    "hint": "llmft_3fZk…",
    "user_id": "user-0123",
    "scopes": ["infer"],
    "created_by": "user-0123",
    "created_at": "2026-11-24T09:30:00+00:00",
    "expires_at": "2027-02-22T09:30:00+00:00",
    "last_used_at": None,
    "revoked_at": None,
}


@blueprint.post("")
@require(Role.VIEWER)
@creates(secret=True)
@blueprint.arguments(NewKeySchema, example={"name": "laptop", "scopes": ["infer"], "expires_in_days": 90})
@blueprint.response(201, MadeKeySchema, example={**KEY, "key": "llmft_3fZk…"})
@blueprint.errors(400, 404)
def create_key(body: dict[str, Any]) -> dict[str, Any]:
    """Make an API key: `key` is shown this once

    It is yours, for the project of your token, and may do what your role allows in its `scopes`. An admin makes
    keys for the project's service accounts too. A key makes no keys: log in for that (403 `needs_log_in`).
    """
    key, text = current_services().api_keys.create(
        current_principal(),
        body["name"],
        username=body["owner"],
        scopes=[Scope(scope) for scope in body["scopes"]],
        days=body["expires_in_days"],
    )
    return {**asdict(key), "key": text}


@blueprint.get("")
@require(Role.VIEWER)
@blueprint.response(200, KeyListSchema, example={"data": [KEY]})
@blueprint.errors()
def list_keys() -> dict[str, Any]:
    """List your keys in the project, newest first; an admin sees everybody's

    Revoked and expired ones stand there too: `revoked_at`, `expires_at`. Of a key itself no more than its `hint`
    is shown.
    """
    return {"data": current_services().api_keys.keys(current_principal())}


@blueprint.delete("/<key_id>")
@require(Role.VIEWER)
@blueprint.response(204)
@blueprint.errors(404)
def revoke_key(key_id: str) -> None:
    """Revoke a key: within a second it opens nothing

    Yours, or, for an admin, anybody's in the project. Again is no error.
    """
    current_services().api_keys.revoke(current_principal(), key_id)
