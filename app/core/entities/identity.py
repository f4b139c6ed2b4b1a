"""Users, projects and who is asking."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

DEFAULT_PROJECT_ID = "default"


class Role(StrEnum):
    """What a member may do in a project; each includes the ones before it."""

    VIEWER = "viewer"
    DEVELOPER = "developer"
    ADMIN = "admin"

    def covers(self, other: "Role") -> bool:
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class User:
    id: str
    username: str
    password_hash: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Membership:
    user_id: str
    project_id: str
    role: Role


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller of one request, in one project."""

    user_id: str
    username: str
    project_id: str
    role: Role


@dataclass(frozen=True, slots=True)
class AccessToken:
    token: str
    expires_in: int  # seconds
