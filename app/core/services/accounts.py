"""People who may call the service."""

import secrets
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from app.core.entities.identity import DEFAULT_PROJECT_ID, MEMBER_ROLES, Membership, Role, User
from app.core.errors import Conflict, Fault, Invalid, NotFound
from app.core.interfaces.identity import SessionRepository, UserRepository
from app.core.interfaces.operations import PasswordHasher
from app.core.services.callers import RecentCallers
from app.core.services.identity import USERNAME

PASSWORD_LENGTHS = range(12, 1025)


class AccountService:
    def __init__(
        self,
        users: UserRepository,
        sessions: SessionRepository,
        passwords: PasswordHasher,
        callers: RecentCallers,
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._passwords = passwords
        self._callers = callers

    def create_user(self, username: str, password: str, role: Role, project_id: str = DEFAULT_PROJECT_ID) -> User:
        """A member of the project; with the role operator its admin, and an operator everywhere.

        ``Invalid`` with every fault; ``Conflict`` if the username is taken; ``NotFound`` without the project.
        """
        faults = []
        if not USERNAME.fullmatch(username):
            faults.append(
                Fault("username", "invalid_username", "1 to 64 letters, digits, dots, dashes or underscores")
            )
        if len(password) not in PASSWORD_LENGTHS:
            wanted = f"{PASSWORD_LENGTHS.start} to {PASSWORD_LENGTHS.stop - 1} characters"
            faults.append(Fault("password", "invalid_password", f"must have {wanted}"))
        if faults:
            raise Invalid("the user has faults", faults=faults)
        user = User(
            id=str(uuid.uuid4()),
            username=username,
            password_hash=self._passwords.hash(password),
            created_at=datetime.now(UTC),
            is_operator=role is Role.OPERATOR,
        )
        self._users.add(user, project_id, role if role in MEMBER_ROLES else Role.ADMIN)
        return user

    def ensure_admin(self, password: str | None) -> str | None:
        """With no user yet, make ``admin``, an operator; the answer is the password if a random one was made."""
        if self._users.any():
            return None
        chosen = password or secrets.token_urlsafe(18)
        try:
            self.create_user("admin", chosen, Role.OPERATOR)
        except Conflict:  # another process was first
            return None
        return None if password else chosen

    def users(self) -> Sequence[tuple[User, Sequence[Membership]]]:
        return [(user, self._users.memberships(user.id)) for user in self._users.list()]

    def sign_out(self, username: str) -> int:
        """End every session of the user, and answer how many there were. ``NotFound`` (user_not_found)."""
        user = self._users.by_username(username)
        if user is None:
            raise no_user(username)
        ended = self._sessions.revoke_all(user.id, datetime.now(UTC))
        self._callers.forget()
        return ended


def no_user(username: str) -> NotFound:
    return NotFound(f"there is no user {username[:80]!r}", code="user_not_found")
