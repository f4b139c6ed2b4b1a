"""Projects, and who works in them."""

import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from app.core.entities.identity import MEMBER_ROLES, Member, Principal, Project, Role, User
from app.core.errors import Conflict, Fault, Invalid, NotFound, no_project
from app.core.interfaces.identity import KeyRepository, UserRepository
from app.core.interfaces.services.people import Projects
from app.core.services.people.accounts import no_user
from app.core.services.people.callers import RecentCallers

PROJECT_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
SERVICE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)


class ProjectService(Projects):
    def __init__(self, users: UserRepository, keys: KeyRepository, callers: RecentCallers) -> None:
        self._users = users
        self._keys = keys
        self._callers = callers

    def projects(self, principal: Principal) -> Sequence[Project]:
        if principal.role.covers(Role.OPERATOR):
            return self._users.projects()
        own = {membership.project_id for membership in self._users.memberships(principal.user_id)}
        return [project for project in self._users.projects() if project.id in own]

    def create(self, project_id: str, admin: str) -> Project:
        if not PROJECT_ID.fullmatch(project_id):
            wanted = "1 to 63 small letters, digits and dashes, a letter or a digit first"
            raise Invalid("the project has faults", faults=[Fault("id", "invalid_project_id", wanted)])
        user = self._person(admin)
        project = Project(project_id, datetime.now(UTC))
        self._users.add_project(project)
        self._users.set_role(user.id, project_id, Role.ADMIN)
        return project

    def members(self, principal: Principal) -> Sequence[Member]:
        return self._users.members(principal.project_id)

    def set_role(self, principal: Principal, username: str, role: Role) -> Member:
        _check(role)
        user = self._users.by_username(username)
        if user is None or (user.is_service and self._users.member(user.id, principal.project_id) is None):
            raise no_user(username)
        self._users.set_role(user.id, principal.project_id, role)
        self._callers.forget()
        return Member(user, role)

    def remove(self, principal: Principal, username: str) -> None:
        user = self._users.by_username(username)
        if user is None or not self._users.remove_member(user.id, principal.project_id):
            raise NotFound(f"no member {username[:80]!r} in this project", code="member_not_found")
        for key in self._keys.list(principal.project_id, user.id):
            self._keys.revoke(principal.project_id, key.id, datetime.now(UTC))
        self._callers.forget()

    def create_service_account(self, principal: Principal, name: str, role: Role) -> Member:
        _check(role)
        if not SERVICE_NAME.fullmatch(name):
            wanted = "1 to 63 small letters, digits, dots, dashes and underscores, a letter or a digit first"
            raise Invalid("the account has faults", faults=[Fault("name", "invalid_name", wanted)])
        username = f"{name}@{principal.project_id}"
        earlier = self._users.by_username(username)
        if earlier is not None and self._users.member(earlier.id, principal.project_id) is None:
            self._users.set_role(earlier.id, principal.project_id, role)  # it was removed, and its keys with it
            return Member(earlier, role)
        user = User(
            id=str(uuid.uuid4()),
            username=username,
            password_hash="",
            created_at=datetime.now(UTC),
            is_service=True,
        )
        self._users.add(user, principal.project_id, role)
        return Member(user, role)

    def acting_in(self, operator: Principal, project_id: str) -> Principal:
        if project_id not in {project.id for project in self._users.projects()}:
            raise no_project(project_id)
        return Principal(operator.user_id, operator.username, project_id, operator.role)

    def _person(self, username: str) -> User:
        user = self._users.by_username(username)
        if user is None or user.is_service:
            raise no_user(username)
        return user


def _check(role: Role) -> None:
    if role not in MEMBER_ROLES:
        raise Conflict("operator is no role of a project: it is given where a user is made", code="not_a_role")
