"""Where users, projects, keys and sessions are kept."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime

from app.core.entities.api_keys import ApiKey
from app.core.entities.identity import Member, Membership, Project, Role, Session, User


class UserRepository(ABC):
    """Users, projects, and who is a member of which: global, not a project's."""

    @abstractmethod
    def add(self, user: User, project_id: str, role: Role) -> None:
        """With its first membership.

        ``Conflict`` (username_taken, subject_taken), ``NotFound`` without the project.
        """

    @abstractmethod
    def by_username(self, username: str) -> User | None: ...

    @abstractmethod
    def by_external_id(self, external_id: str) -> User | None: ...

    @abstractmethod
    def set_password_hash(self, user_id: str, password_hash: str) -> None: ...

    @abstractmethod
    def set_external_id(self, user_id: str, external_id: str | None) -> None:
        """``Conflict`` (subject_taken)."""

    @abstractmethod
    def set_disabled(self, user_id: str, at: datetime | None) -> None:
        """None: enabled. ``Conflict`` (last_operator)."""

    @abstractmethod
    def memberships(self, user_id: str) -> Sequence[Membership]:
        """Oldest first; the first is the default project."""

    @abstractmethod
    def list(self) -> Sequence[User]:
        """By username."""

    @abstractmethod
    def any(self) -> bool: ...

    @abstractmethod
    def member(self, user_id: str, project_id: str) -> Member | None: ...

    @abstractmethod
    def members(self, project_id: str) -> Sequence[Member]:
        """By username."""

    @abstractmethod
    def set_role(self, user_id: str, project_id: str, role: Role) -> None:
        """Of a member, or of one that becomes it. ``NotFound`` without the project, ``Conflict`` (last_admin)."""

    @abstractmethod
    def remove_member(self, user_id: str, project_id: str) -> bool:
        """Whether they were one. ``Conflict`` (last_admin)."""

    @abstractmethod
    def add_project(self, project: Project) -> None:
        """``Conflict`` (project_taken)."""

    @abstractmethod
    def projects(self) -> Sequence[Project]:
        """By id."""


class KeyRepository(ABC):
    @abstractmethod
    def add(self, key: ApiKey) -> None: ...

    @abstractmethod
    def by_hash(self, key_hash: str) -> ApiKey | None:
        """Of any project: the key says whose it is."""

    @abstractmethod
    def list(self, project_id: str, user_id: str | None = None) -> Sequence[ApiKey]:
        """Newest first; of that user alone, or of all."""

    @abstractmethod
    def revoke(self, project_id: str, key_id: str, at: datetime, user_id: str | None = None) -> bool:
        """Whether there is such a key, of that user or of anybody; again changes nothing."""

    @abstractmethod
    def revoke_all(self, user_id: str, at: datetime) -> int:
        """In every project; how many were not revoked."""

    @abstractmethod
    def used(self, key_id: str, at: datetime) -> None: ...


class SessionRepository(ABC):
    @abstractmethod
    def add(self, session: Session) -> None:
        """Sessions of the same user that have expired go."""

    @abstractmethod
    def get(self, session_id: str) -> Session | None: ...

    @abstractmethod
    def rotate(self, handle_hash: str, secret_hash: str, next_hash: str, at: datetime) -> Session | None:
        """The session of the handle, as it is afterwards; None if there is none.

        With the newest secret, and while it lives, ``next_hash`` takes its place. Any other secret was used
        before, by its owner or by a thief: the session is revoked.
        """

    @abstractmethod
    def revoke(self, session_id: str, at: datetime) -> None: ...

    @abstractmethod
    def revoke_all(self, user_id: str, at: datetime) -> int:
        """How many were live."""
