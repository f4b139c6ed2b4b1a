"""Users: the operator's."""

from dataclasses import asdict
from typing import Any

from app.api.users.schemas import NewUserSchema, UserListSchema, UserSchema
from app.core.entities.identity import Role, User
from app.extensions import current_services
from app.gateway.authentication import require
from app.gateway.idempotency import creates
from app.gateway.openapi import Blueprint

blueprint = Blueprint("users", __name__, url_prefix="/api/v1/users", description="People and service accounts")

USER = {
    "id": "user-0123",
    "username": "alice",
    "is_operator": False,
    "is_service": False,
    "created_at": "2026-11-24T09:30:00+00:00",
}
NEW = {"username": "alice", "password": "correct horse battery", "role": "developer", "project": "default"}


@blueprint.get("")
@require(Role.OPERATOR)
@blueprint.response(
    200,
    UserListSchema,
    example={"data": [{**USER, "memberships": [{"project_id": "default", "role": "developer"}]}]},
)
@blueprint.errors()
def list_users() -> dict[str, Any]:
    """List all users and what they are members of, by name"""
    found = current_services().accounts.users()
    return {"data": [{**asdict(user), "memberships": memberships} for user, memberships in found]}


@blueprint.post("")
@require(Role.OPERATOR)
@creates()
@blueprint.arguments(NewUserSchema, example=NEW)
@blueprint.response(201, UserSchema, example=USER)
@blueprint.errors(400, 404, 409)
def create_user(body: dict[str, Any]) -> User:
    """Make a user, a member of one project

    An admin of another project makes them a member there: `PUT /api/v1/members/{username}`.
    """
    return current_services().accounts.create_user(
        body["username"], body["password"], Role(body["role"]), body["project"]
    )
