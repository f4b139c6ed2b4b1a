"""Users, keys and sessions in memory: twins for tests, held to the same tests as those over SQL."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from app.core.entities.api_keys import ApiKey
from app.core.entities.identity import (
    DEFAULT_PROJECT_ID,
    Member,
    Membership,
    Project,
    Role,
    Session,
    User,
    no_project,
)
from app.core.interfaces.identity import KeyRepository, SessionRepository, UserRepository
from app.repositories.memory import locked
from app.repositories.user_rules import (
    keep_an_admin,
    keep_an_operator,
    project_taken,
    subject_taken,
    username_taken,
)


class MemoryUserRepository(UserRepository):
    def __init__(self, projects: Sequence[str] = (DEFAULT_PROJECT_ID,)) -> None:
        self._projects = {name: Project(name, datetime.now(UTC)) for name in projects}
        self._users: dict[str, User] = {}  # by id
        self._roles: dict[tuple[str, str], Role] = {}  # by user and project, in the order of their beginning

    @locked
    def add(self, user: User, project_id: str, role: Role) -> None:
        if project_id not in self._projects:
            raise no_project(project_id)
        if self.by_username(user.username):
            raise username_taken(user.username)
        if user.external_id is not None and self.by_external_id(user.external_id):
            raise subject_taken()
        self._users[user.id] = user
        self._roles[user.id, project_id] = role

    @locked
    def by_username(self, username: str) -> User | None:
        return next((user for user in self._users.values() if user.username == username), None)

    @locked
    def by_external_id(self, external_id: str) -> User | None:
        return next((user for user in self._users.values() if user.external_id == external_id), None)

    @locked
    def set_password_hash(self, user_id: str, password_hash: str) -> None:
        self._users[user_id] = replace(self._users[user_id], password_hash=password_hash)

    @locked
    def set_external_id(self, user_id: str, external_id: str | None) -> None:
        holder = None if external_id is None else self.by_external_id(external_id)
        if holder is not None and holder.id != user_id:
            raise subject_taken()
        self._users[user_id] = replace(self._users[user_id], external_id=external_id)

    @locked
    def set_disabled(self, user_id: str, at: datetime | None) -> None:
        enabled = [user.id for user in self._users.values() if user.is_operator and user.disabled_at is None]
        if at is not None:
            keep_an_operator(self._users[user_id], enabled)
        self._users[user_id] = replace(self._users[user_id], disabled_at=at)

    @locked
    def memberships(self, user_id: str) -> Sequence[Membership]:
        return [
            Membership(user, project, role) for (user, project), role in self._roles.items() if user == user_id
        ]

    @locked
    def list(self) -> Sequence[User]:
        return sorted(self._users.values(), key=lambda user: user.username)

    def any(self) -> bool:
        return bool(self._users)

    @locked
    def member(self, user_id: str, project_id: str) -> Member | None:
        role = self._roles.get((user_id, project_id))
        return None if role is None else Member(self._users[user_id], role)

    @locked
    def members(self, project_id: str) -> Sequence[Member]:
        found = [Member(self._users[user], role) for user, role in self._of(project_id).items()]
        return sorted(found, key=lambda member: member.user.username)

    @locked
    def set_role(self, user_id: str, project_id: str, role: Role) -> None:
        keep_an_admin(self._of(project_id), user_id, role)
        self._roles[user_id, project_id] = role

    @locked
    def remove_member(self, user_id: str, project_id: str) -> bool:
        keep_an_admin(self._of(project_id), user_id, None)
        return self._roles.pop((user_id, project_id), None) is not None

    @locked
    def add_project(self, project: Project) -> None:
        if project.id in self._projects:
            raise project_taken(project.id)
        self._projects[project.id] = project

    @locked
    def projects(self) -> Sequence[Project]:
        return [project for _, project in sorted(self._projects.items())]

    def _of(self, project_id: str) -> dict[str, Role]:
        if project_id not in self._projects:
            raise no_project(project_id)
        return {user: role for (user, project), role in self._roles.items() if project == project_id}


class MemoryKeyRepository(KeyRepository):
    def __init__(self) -> None:
        self._keys: dict[str, ApiKey] = {}

    @locked
    def add(self, key: ApiKey) -> None:
        self._keys[key.id] = key

    @locked
    def by_hash(self, key_hash: str) -> ApiKey | None:
        return next((key for key in self._keys.values() if key.hash == key_hash), None)

    @locked
    def list(self, project_id: str, user_id: str | None = None) -> Sequence[ApiKey]:
        found = [key for key in self._keys.values() if key.project_id == project_id]
        mine = [key for key in found if user_id in (None, key.user_id)]
        return sorted(sorted(mine, key=lambda key: key.id), key=lambda key: key.created_at, reverse=True)

    @locked
    def revoke(self, project_id: str, key_id: str, at: datetime, user_id: str | None = None) -> bool:
        key = self._keys.get(key_id)
        if key is None or key.project_id != project_id or user_id not in (None, key.user_id):
            return False
        if key.revoked_at is None:
            self._keys[key_id] = replace(key, revoked_at=at)
        return True

    @locked
    def revoke_all(self, user_id: str, at: datetime) -> int:
        live = [key for key in self._keys.values() if key.user_id == user_id and key.revoked_at is None]
        for key in live:
            self._keys[key.id] = replace(key, revoked_at=at)
        return len(live)

    @locked
    def used(self, key_id: str, at: datetime) -> None:
        self._keys[key_id] = replace(self._keys[key_id], last_used_at=at)


class MemorySessionRepository(SessionRepository):
    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}

    @locked
    def add(self, session: Session) -> None:
        old = [s.id for s in self._sessions.values() if s.user_id == session.user_id]
        for session_id in old:
            if self._sessions[session_id].expires_at < session.created_at:
                del self._sessions[session_id]
        self._sessions[session.id] = session

    @locked
    def get(self, session_id: str) -> Session | None:
        return self._sessions.get(session_id)

    @locked
    def rotate(self, handle_hash: str, secret_hash: str, next_hash: str, at: datetime) -> Session | None:
        found = next((s for s in self._sessions.values() if s.handle_hash == handle_hash), None)
        if found is None:
            return None
        if found.is_live(at):
            is_newest = found.secret_hash == secret_hash
            found = replace(found, secret_hash=next_hash) if is_newest else replace(found, revoked_at=at)
            self._sessions[found.id] = found
        return found

    @locked
    def revoke(self, session_id: str, at: datetime) -> None:
        found = self._sessions.get(session_id)
        if found is not None and found.is_live(at):
            self._sessions[session_id] = replace(found, revoked_at=at)

    @locked
    def revoke_all(self, user_id: str, at: datetime) -> int:
        live = [s.id for s in self._sessions.values() if s.user_id == user_id and s.is_live(at)]
        for session_id in live:
            self.revoke(session_id, at)
        return len(live)
