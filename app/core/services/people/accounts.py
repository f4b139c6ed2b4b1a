"""People who may call the service."""

import secrets
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from app.core.entities.identity import (
    DEFAULT_PROJECT_ID,
    MEMBER_ROLES,
    PASSWORD_LENGTHS,
    Membership,
    Principal,
    Role,
    User,
    external_id,
)
from app.core.errors import Conflict, Fault, Forbidden, Invalid, NotFound
from app.core.interfaces.operations import PasswordHasher
from app.core.interfaces.services.people import Accounts
from app.core.interfaces.stores import People
from app.core.services.people.callers import RecentCallers
from app.core.services.people.identity import USERNAME
from app.core.services.people.rates import RateService


class AccountService(Accounts):
    def __init__(
        self,
        people: People,
        passwords: PasswordHasher,
        callers: RecentCallers,
        rates: RateService,
        issuer: str | None = None,
    ) -> None:
        """``issuer`` is the external one, if there is one."""
        self._users = people.users
        self._keys = people.keys
        self._sessions = people.sessions
        self._issuer = issuer
        self._passwords = passwords
        self._callers = callers
        self._rates = rates

    def create_user(
        self,
        username: str,
        password: str | None,
        role: Role,
        project_id: str = DEFAULT_PROJECT_ID,
        subject: str | None = None,
    ) -> User:
        faults = []
        if not USERNAME.fullmatch(username):
            faults.append(
                Fault("username", "invalid_username", "1 to 64 letters, digits, dots, dashes or underscores")
            )
        if password is not None:
            faults += _password_faults("password", password)
        elif subject is None:
            faults.append(
                Fault("password", "required", "or a subject, for one who logs in at the external issuer")
            )
        if faults:
            raise Invalid("the user has faults", faults=faults)
        user = User(
            id=str(uuid.uuid4()),
            username=username,
            password_hash="" if password is None else self._passwords.hash(password),
            created_at=datetime.now(UTC),
            is_operator=role is Role.OPERATOR,
            external_id=None if subject is None else self._external_id(subject),
        )
        self._users.add(user, project_id, role if role in MEMBER_ROLES else Role.ADMIN)
        return user

    def ensure_admin(self, password: str | None) -> str | None:
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

    def change_password(self, principal: Principal, old: str, new: str) -> None:
        if principal.key_id is not None:
            raise Forbidden("a key changes no password: log in for that", code="needs_log_in")
        self._rates.attempt(principal.username)
        user = self._users.by_username(principal.username)
        if user is None or not self._passwords.matches(old, user.password_hash):
            raise Forbidden("the old password is wrong", code="wrong_password")
        self._rates.forgive(principal.username)
        self._set_password(user, new, "new_password")

    def set_password(self, username: str, password: str) -> None:
        self._set_password(self._person(username), password, "password")

    def link(self, username: str, subject: str | None) -> User:
        user = self._person(username)
        known_as = None if subject is None else self._external_id(subject)
        self._users.set_external_id(user.id, known_as)
        self._callers.forget()
        return replace(user, external_id=known_as)

    def disable(self, username: str) -> User:
        user, now = self._user(username), datetime.now(UTC)
        self._users.set_disabled(user.id, user.disabled_at or now)
        self._sessions.revoke_all(user.id, now)
        self._keys.revoke_all(user.id, now)
        self._callers.forget()
        return replace(user, disabled_at=user.disabled_at or now)

    def enable(self, username: str) -> User:
        user = self._user(username)
        self._users.set_disabled(user.id, None)
        return replace(user, disabled_at=None)

    def sign_out(self, username: str) -> int:
        ended = self._sessions.revoke_all(self._user(username).id, datetime.now(UTC))
        self._callers.forget()
        return ended

    def _set_password(self, user: User, password: str, where: str) -> None:
        if faults := _password_faults(where, password):
            raise Invalid("the password has faults", faults=faults)
        self._users.set_password_hash(user.id, self._passwords.hash(password))
        self._sessions.revoke_all(user.id, datetime.now(UTC))
        self._callers.forget()

    def _external_id(self, subject: str) -> str:
        if self._issuer is None:
            raise Conflict("there is no external issuer: set OIDC_ISSUER first", code="no_issuer")
        return external_id(self._issuer, subject)

    def _user(self, username: str) -> User:
        user = self._users.by_username(username)
        if user is None:
            raise no_user(username)
        return user

    def _person(self, username: str) -> User:
        user = self._user(username)
        if user.is_service:
            raise no_user(username)
        return user


def _password_faults(where: str, password: str) -> list[Fault]:
    if len(password) in PASSWORD_LENGTHS:
        return []
    wanted = f"must have {PASSWORD_LENGTHS.start} to {PASSWORD_LENGTHS.stop - 1} characters"
    return [Fault(where, "invalid_password", wanted)]


def no_user(username: str) -> NotFound:
    return NotFound(f"there is no user {username[:80]!r}", code="user_not_found")
