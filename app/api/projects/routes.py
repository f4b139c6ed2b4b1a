"""Projects, their members and service accounts."""

from typing import Any

from app.api.projects.schemas import (
    LimitReportSchema,
    MemberListSchema,
    MemberSchema,
    NewProjectSchema,
    ProjectLimitsSchema,
    ProjectListSchema,
    ProjectSchema,
    RoleSchema,
    ServiceAccountSchema,
)
from app.core.entities.identity import Member, Project, Role
from app.core.entities.limits import LimitReport
from app.extensions import current_services
from app.gateway.authentication import current_principal, require
from app.gateway.idempotency import creates
from app.gateway.openapi import Blueprint

projects = Blueprint("projects", __name__, url_prefix="/api/v1/projects", description="Projects")
members = Blueprint("members", __name__, url_prefix="/api/v1", description="Who works in the project")

PROJECT = {"id": "support", "created_at": "2026-11-24T09:30:00+00:00"}
OWN = {"tokens": 200_000, "storage_bytes": 10_000_000_000, "versions": 20}
LIMITS = {
    "limits": {"running": None, "queued": 1000, "requests": None, **OWN},
    "own": {"running": None, "queued": None, "requests": None, **OWN},
    "used": {"running": 1, "queued": 3, "storage_bytes": 48_300_000, "versions": 4},
}
MEMBER = {"username": "alice", "user_id": "user-0123", "role": "developer", "is_service": False}
SERVICE = {"username": "ci@support", "user_id": "user-0124", "role": "developer", "is_service": True}


@projects.get("")
@require(Role.VIEWER)
@projects.response(200, ProjectListSchema, example={"data": [PROJECT]})
@projects.errors()
def list_projects() -> dict[str, Any]:
    """List the projects that you are a member of

    An operator sees all. A token is for one: name it where you log in.
    """
    return {"data": current_services().projects.projects(current_principal())}


@projects.post("")
@require(Role.OPERATOR)
@creates()
@projects.arguments(NewProjectSchema, example={"id": "support", "admin": "alice"})
@projects.response(201, ProjectSchema, example=PROJECT)
@projects.errors(400, 404, 409)
def create_project(body: dict[str, Any]) -> Project:
    """Make a project, with its first admin

    `admin` is a user who is there already, and no service account: 404 `user_not_found`. 409 `project_taken`. It
    may have what the service's settings say, until `PUT /api/v1/projects/{project_id}/limits` sets other limits.
    """
    return current_services().projects.create(body["id"], body["admin"])


@projects.get("/<project_id>/limits")
@require(Role.DEVELOPER)
@projects.response(200, LimitReportSchema, example=LIMITS)
@projects.errors(404)
def show_limits(project_id: str) -> LimitReport:
    """See what the project may have, and what it has

    Your own; an operator sees any. Between projects workers share fairly: the one with the fewest jobs in hand
    comes first.
    """
    return current_services().limits.report(current_principal(), project_id)


@projects.put("/<project_id>/limits")
@require(Role.OPERATOR)
@projects.arguments(ProjectLimitsSchema, example=OWN)
@projects.response(200, LimitReportSchema, example=LIMITS)
@projects.errors(400, 404)
def set_limits(body: dict[str, Any], project_id: str) -> LimitReport:
    """Set what a project may have

    What is null or left out is as the service's settings say. Rates hold within seconds; what a project has beyond
    a quota stays.
    """
    return current_services().limits.change(current_principal(), project_id, body)


@members.get("/members")
@require(Role.DEVELOPER)
@members.response(200, MemberListSchema, example={"data": [MEMBER, SERVICE]})
@members.errors()
def list_members() -> dict[str, Any]:
    """List the project's members and service accounts, by name

    Each with the role in this project; users who are disabled stand there too. An operator who is no member of it
    does not.
    """
    return {"data": current_services().projects.members(current_principal())}


@members.put("/members/<username>")
@require(Role.ADMIN)
@members.arguments(RoleSchema, example={"role": "developer"})
@members.response(200, MemberSchema, example=MEMBER)
@members.errors(400, 404, 409)
def set_role(body: dict[str, Any], username: str) -> Member:
    """Give a user a role in the project

    One who is no member becomes it. It holds at once, for tokens and keys that are out too. 409 `last_admin`: a
    project keeps one.
    """
    return current_services().projects.set_role(current_principal(), username, Role(body["role"]))


@members.delete("/members/<username>")
@require(Role.ADMIN)
@members.response(204)
@members.errors(404, 409)
def remove_member(username: str) -> None:
    """Take a user out of the project

    Their tokens and keys for it end at once; what they made stays.
    """
    current_services().projects.remove(current_principal(), username)


@members.post("/service-accounts")
@require(Role.ADMIN)
@creates()
@members.arguments(ServiceAccountSchema, example={"name": "ci", "role": "developer"})
@members.response(201, MemberSchema, example=SERVICE)
@members.errors(400, 409)
def create_service_account(body: dict[str, Any]) -> Member:
    """Make a service account: a member for a program

    It is `name@project`, has no password, and belongs to this project alone. `POST /api/v1/keys` makes its keys.
    """
    return current_services().projects.create_service_account(
        current_principal(), body["name"], Role(body["role"])
    )
