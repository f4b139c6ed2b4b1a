"""Users, projects and who is asking."""

from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Self

DEFAULT_PROJECT_ID = "default"
PASSWORD_LENGTHS = range(12, 1025)


class Role(StrEnum):
    """What a caller may do in a project; each includes the ones before it.

    ``OPERATOR`` is the platform's: a user has it, in every project of theirs, and no membership names it.
    """

    VIEWER = "viewer"
    DEVELOPER = "developer"
    ADMIN = "admin"
    OPERATOR = "operator"

    def covers(self, other: "Role") -> bool:
        order = list(Role)
        return order.index(self) >= order.index(other)


MEMBER_ROLES = (Role.VIEWER, Role.DEVELOPER, Role.ADMIN)


class Scope(StrEnum):
    """The part of the service that a route belongs to: an API key may be held to some of them."""

    DATASETS = "datasets"
    TRAIN = "train"
    INFER = "infer"
    MODELS = "models"
    ENGINES = "engines"
    USAGE = "usage"
    WEBHOOKS = "webhooks"
    ACCESS = "access"  # projects, members, users, keys


@dataclass(frozen=True, slots=True)
class Project:
    id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class User:
    """A person, or a service account of one project, ``name@project``, which has keys and no password.

    An empty ``password_hash`` is none that a password matches. ``external_id`` is how the external issuer knows a
    person. One who has been disabled calls no more.
    """

    id: str
    username: str
    password_hash: str
    created_at: datetime
    is_operator: bool = False
    is_service: bool = False
    external_id: str | None = None
    disabled_at: datetime | None = None


def external_id(issuer: str, subject: str) -> str:
    """A subject is unique to its issuer alone."""
    return f"{issuer}#{subject}"


@dataclass(frozen=True, slots=True)
class Membership:
    user_id: str
    project_id: str
    role: Role


@dataclass(frozen=True, slots=True)
class Member:
    """A user in one project."""

    user: User
    role: Role

    @property
    def reach(self) -> Role:
        """What they may do there."""
        return Role.OPERATOR if self.user.is_operator else self.role


@dataclass(frozen=True, slots=True)
class Principal:
    """The one who asks a service, in one project: the authenticated caller of a request, or a command on the host.

    ``scopes`` are those of the API key, None: all. A log-in has a ``session_id``, an API key a ``key_id``, and
    a token of an external issuer neither. One that ``is_host`` may name any path of the host.
    """

    user_id: str
    username: str
    project_id: str
    role: Role
    scopes: Set[Scope] | None = None
    session_id: str | None = None
    key_id: str | None = None
    is_host: bool = False

    @classmethod
    def host(cls, project_id: str = DEFAULT_PROJECT_ID) -> Self:
        """Return the operator of this host, whose commands need no log-in."""
        return cls("operator", "operator", project_id, Role.OPERATOR, is_host=True)

    def may_use(self, scope: Scope | None) -> bool:
        return self.scopes is None or scope in self.scopes


@dataclass(frozen=True, slots=True)
class AccessToken:
    token: str
    expires_in: int  # seconds
    refresh_token: str


@dataclass(frozen=True, slots=True)
class Session:
    """A log-in and all that was refreshed from it: a family, of whose refresh tokens one is good at a time."""

    id: str
    user_id: str
    project_id: str
    handle_hash: str  # of the part that its refresh tokens share
    secret_hash: str  # of the part that the newest alone has
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None

    def is_live(self, now: datetime) -> bool:
        return self.revoked_at is None and now < self.expires_at
