"""Log-in."""

from typing import Any

from app.api.auth.schemas import (
    CallerSchema,
    CredentialsSchema,
    JwksSchema,
    PasswordChangeSchema,
    RefreshSchema,
    TokenSchema,
)
from app.core.entities.identity import AccessToken, Principal, Role
from app.extensions import current_services
from app.gateway import audit
from app.gateway.authentication import current_principal, require
from app.gateway.openapi import Blueprint

blueprint = Blueprint("auth", __name__, url_prefix="/api/v1/auth", description="Access tokens")
well_known = Blueprint("well_known", __name__, url_prefix="/.well-known", description="Public keys")

TOKEN = {
    "access_token": "eyJhbGciOi…",
    "token_type": "Bearer",
    "expires_in": 1800,
    "refresh_token": "llmftr_…",
}
JWKS = {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qY…", "kid": "kPrK…", "use": "sig", "alg": "EdDSA"}]}
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


@blueprint.put("/password")
@require(Role.VIEWER)
@blueprint.arguments(
    PasswordChangeSchema,
    example={"old_password": "correct horse battery", "new_password": "staple correct horse"},
)
@blueprint.response(204)
@blueprint.errors(400)
def change_password(body: dict[str, Any]) -> None:
    """Change your password

    Every session of yours ends, this one too: log in again. API keys stay. 403 `wrong_password`, or `needs_log_in`
    for an API key.
    """
    current_services().accounts.change_password(current_principal(), body["old_password"], body["new_password"])


@blueprint.get("/whoami")
@require(Role.VIEWER)
@blueprint.response(200, CallerSchema, example=CALLER)
@blueprint.errors()
def whoami() -> Principal:
    """See who you are, in which project, and what you may do

    The project is the one that the token or key is for, and `role` is yours there, or `operator`. `scopes` and
    `key_id` are an API key's; null `scopes`: whatever the role may do.
    """
    return current_principal()


@well_known.get("/jwks.json")
@well_known.response(200, JwksSchema, example=JWKS)
def jwks() -> tuple[dict[str, Any], int, dict[str, str]]:
    """Get the keys that access tokens can be verified with

    A JWK Set (RFC 7517), for programs that read tokens of this service. It is empty where tokens are signed with a
    secret (HS256).
    """
    keys = current_services().identity.public_keys()
    return {"keys": keys}, 200, {"Cache-Control": "public, max-age=300"}
