"""Log-in."""

from typing import Any

from app.api.auth.schemas import CredentialsSchema, TokenSchema
from app.core.entities.identity import AccessToken
from app.extensions import current_services
from app.gateway.openapi import Blueprint

blueprint = Blueprint("auth", __name__, url_prefix="/api/v1/auth", description="Access tokens")


@blueprint.post("/token")
@blueprint.arguments(CredentialsSchema, example={"username": "admin", "password": "correct horse battery"})
@blueprint.response(
    200, TokenSchema, example={"access_token": "eyJhbGciOi…", "token_type": "Bearer", "expires_in": 3600}
)
@blueprint.errors(400, 401)
def token(credentials: dict[str, Any]) -> AccessToken:
    """Get an access token

    Send it as `Authorization: Bearer …`. A user who does not exist and a wrong password look the same.
    """
    return current_services().identity.login(credentials["username"], credentials["password"])
