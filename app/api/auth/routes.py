"""Log-in."""

from typing import Any

from app.api.auth.schemas import CallerSchema, CredentialsSchema, RefreshSchema, TokenSchema
from app.core.entities.identity import AccessToken, Principal, Role
from app.extensions import current_services
from app.gateway import audit
from app.gateway.authentication import current_principal, require
from app.gateway.openapi import Blueprint

blueprint = Blueprint("auth", __name__, url_prefix="/api/v1/auth", description="Access tokens")

TOKEN = {
    "access_token": "eyJhbGciOi…",
    "token_type": "Bearer",
    "expires_in": 1800,
    "refresh_token": "llmftr_…",
}
CALLER = {
    "user_id": "user-0123",
    "username": "alice",
    "project_id": "default",
    "role": "developer",
    "scopes": None,
    "key_id": None,
}


@blueprint.post("/token")
@blueprint.arguments(CredentialsSchema, example={"username": "admin", "password": "correct horse battery"})
@blueprint.response(200, TokenSchema, example=TOKEN)
@blueprint.errors(400, 401)
def token(credentials: dict[str, Any]) -> AccessToken:
    """Get an access token

    Send it as `Authorization: Bearer …`. A user who does not exist and a wrong password look the same.
    """
    audit.enter(credentials["username"])
    identity = current_services().identity
    made = identity.login(credentials["username"], credentials["password"], credentials["project"])
    audit.enter(identity.authenticate(made.token))
    return made


@blueprint.post("/refresh")
@blueprint.arguments(RefreshSchema, example={"refresh_token": "llmftr_…"})
@blueprint.response(200, TokenSchema, example=TOKEN)
@blueprint.errors(400, 401)
def refresh(body: dict[str, Any]) -> AccessToken:
    """Get the next access token, without the password

    The answer has the next refresh token, and the one sent is used up. Sent again, it ends the whole session:
    somebody else may have it.
    """
    audit.enter("unknown")
    identity = current_services().identity
    made = identity.refresh(body["refresh_token"])
    audit.enter(identity.authenticate(made.token))
    return made


@blueprint.post("/logout")
@require(Role.VIEWER)
@blueprint.response(204)
@blueprint.errors()
def logout() -> None:
    """End the session: its access tokens and its refresh token

    An API key has no session, and stays: `DELETE /api/v1/keys/{key_id}` revokes it.
    """
    current_services().identity.logout(current_principal())


@blueprint.get("/whoami")
@require(Role.VIEWER)
@blueprint.response(200, CallerSchema, example=CALLER)
@blueprint.errors()
def whoami() -> Principal:
    """See who you are, in which project, and what you may do"""
    return current_principal()
