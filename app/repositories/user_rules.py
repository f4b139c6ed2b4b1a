"""What the repository of users refuses, over SQL and in memory alike."""

from collections.abc import Collection, Mapping

from app.core.entities.identity import Role, User
from app.core.errors import Conflict


def username_taken(username: str) -> Conflict:
    return Conflict(f"the username {username} is taken", code="username_taken")


def subject_taken() -> Conflict:
    return Conflict("another user is linked to that subject already", code="subject_taken")


def keep_an_operator(user: User, enabled_operators: Collection[str]) -> None:
    """``enabled_operators`` are users' ids."""
    if set(enabled_operators) == {user.id}:
        raise Conflict("this is the only operator: make another one first", code="last_operator")


def project_taken(project_id: str) -> Conflict:
    return Conflict(f"there is a project {project_id} already", code="project_taken")


def keep_an_admin(roles: Mapping[str, Role], user_id: str, role: Role | None) -> None:
    """``roles`` are the members' by user; None: the user leaves."""
    others = [other for other, held in roles.items() if held is Role.ADMIN and other != user_id]
    if roles.get(user_id) is Role.ADMIN and role is not Role.ADMIN and not others:
        message = "this is the project's only admin: make another member one first"
        raise Conflict(message, code="last_admin")
