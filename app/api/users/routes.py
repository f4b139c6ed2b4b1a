"""Users: the operator's."""

from dataclasses import asdict
from typing import Any

from app.api.users.schemas import NewPasswordSchema, NewUserSchema, SubjectSchema, UserListSchema, UserSchema
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
    "external_id": None,
    "disabled_at": None,
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
    """List all users and what they are members of, by name

    Service accounts and disabled users (`disabled_at`) too. Empty `memberships`: a member of no project.
    """
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
        body["username"], body["password"], Role(body["role"]), body["project"], body["subject"]
    )


@blueprint.put("/<username>/password")
@require(Role.OPERATOR)
@blueprint.arguments(NewPasswordSchema, example={"password": "staple correct horse"})
@blueprint.response(204)
@blueprint.errors(400, 404)
def set_password(body: dict[str, Any], username: str) -> None:
    """Give a user another password

    Every session of theirs ends; their API keys stay.
    """
    current_services().accounts.set_password(username, body["password"])


@blueprint.put("/<username>/subject")
@require(Role.OPERATOR)
@blueprint.arguments(SubjectSchema, example={"subject": "00u1abcd"})
@blueprint.response(200, UserSchema, example={**USER, "external_id": "https://login.example.com#00u1abcd"})
@blueprint.errors(400, 404, 409)
def link(body: dict[str, Any], username: str) -> User:
    """Link a user to who they are at the external issuer

    Its tokens for that subject are theirs from now on. 409 `subject_taken`; `no_issuer` where `OIDC_ISSUER` is not
    set.
    """
    return current_services().accounts.link(username, body["subject"])


@blueprint.post("/<username>/disable")
@require(Role.OPERATOR)
@blueprint.response(200, UserSchema, example={**USER, "disabled_at": "2026-11-24T10:00:00+00:00"})
@blueprint.errors(404, 409)
def disable(username: str) -> User:
    """Let a user, or a service account, call no more

    Within a second their sessions and API keys open nothing, in any web process, and stay so if they are enabled
    again. What they made stays, and says that it was them. 409 `last_operator`: the service keeps one.
    """
    return current_services().accounts.disable(username)


@blueprint.post("/<username>/enable")
@require(Role.OPERATOR)
@blueprint.response(200, UserSchema, example=USER)
@blueprint.errors(404)
def enable(username: str) -> User:
    """Let a disabled user log in again, with the roles that they had

    Their earlier sessions and API keys stay ended: they log in, and make new keys. One who is not disabled stays
    as they are.
    """
    return current_services().accounts.enable(username)
