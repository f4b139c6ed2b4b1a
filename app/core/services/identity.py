"""Who is asking: log-ins, tokens, users."""

import re
import secrets
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property

from app.core.entities.identity import (
    DEFAULT_PROJECT_ID,
    AccessToken,
    Membership,
    Principal,
    Role,
    User,
)
from app.core.errors import Conflict, Fault, Invalid, Unauthorized
from app.core.interfaces.operations import PasswordHasher, TokenIssuer
from app.core.interfaces.storage import UserRepository

USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PASSWORD_LENGTHS = range(12, 1025)


class IdentityService:
    def __init__(
        self, users: UserRepository, passwords: PasswordHasher, tokens: TokenIssuer, token_seconds: int
    ) -> None:
        self._users = users
        self._passwords = passwords
        self._tokens = tokens
        self._token_seconds = token_seconds

    def login(self, username: str, password: str) -> AccessToken:
        """``Unauthorized`` (invalid_credentials), after the same work whether or not there is such a user."""
        decoy = self._decoy
        user = self._users.by_username(username) if USERNAME.fullmatch(username) else None
        matches = self._passwords.matches(password, user.password_hash if user else decoy)
        memberships = self._users.memberships(user.id) if user and matches else ()
        if user is None or not memberships:
            raise Unauthorized("the username or the password is wrong", code="invalid_credentials")
        claims = {"sub": user.id, "username": user.username, "project": memberships[0].project_id}
        return AccessToken(self._tokens.issue(claims, self._token_seconds), self._token_seconds)

    def authenticate(self, token: str) -> Principal:
        """Who holds the token. The role is today's, so that a change or a removal acts at once.

        ``Unauthorized`` with code token_expired or token_invalid.
        """
        claims = self._tokens.verify(token)
        user_id, project_id = claims["sub"], claims.get("project")
        for membership in self._users.memberships(user_id):
            if membership.project_id == project_id:
                return Principal(user_id, str(claims.get("username")), project_id, membership.role)
        raise Unauthorized("the access token's user has left the project", code="token_invalid")

    def create_user(self, username: str, password: str, role: Role, project_id: str = DEFAULT_PROJECT_ID) -> User:
        """``Invalid`` with every fault; ``Conflict`` if the username is taken."""
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
        user = User(str(uuid.uuid4()), username, self._passwords.hash(password), datetime.now(UTC))
        self._users.add(user, project_id, role)
        return user

    def ensure_admin(self, password: str | None) -> str | None:
        """With no user yet, make ``admin``; the answer is its password if a random one had to be made."""
        if self._users.any():
            return None
        chosen = password or secrets.token_urlsafe(18)
        try:
            self.create_user("admin", chosen, Role.ADMIN)
        except Conflict:  # another process was first
            return None
        return None if password else chosen

    def users(self) -> Sequence[tuple[User, Sequence[Membership]]]:
        return [(user, self._users.memberships(user.id)) for user in self._users.list()]

    @cached_property
    def _decoy(self) -> str:
        return self._passwords.hash(secrets.token_hex(16))
