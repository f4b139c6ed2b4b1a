"""API keys: made, shown once, revoked."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from app.core.entities.api_keys import MOST_DAYS, NAME_LENGTHS, ApiKey, digest_of, hint_of, new_key_text
from app.core.entities.identity import Principal, Role, Scope
from app.core.errors import Fault, Forbidden, Invalid, NotFound
from app.core.interfaces.identity import KeyRepository, UserRepository
from app.core.interfaces.operations import TokenIssuer
from app.core.interfaces.services.people import ApiKeys
from app.core.services.people.callers import RecentCallers


class ApiKeyService(ApiKeys):
    def __init__(
        self, keys: KeyRepository, users: UserRepository, callers: RecentCallers, tokens: TokenIssuer
    ) -> None:
        self._keys = keys
        self._users = users
        self._callers = callers
        self._tokens = tokens

    def create(
        self,
        principal: Principal,
        name: str,
        *,
        username: str | None = None,
        scopes: Sequence[Scope] = (),
        days: int | None = None,
    ) -> tuple[ApiKey, str]:
        faults = []
        if len(name) not in NAME_LENGTHS or not name.isprintable():
            faults.append(Fault("name", "invalid_name", "1 to 100 printable characters"))
        if days is not None and not 1 <= days <= MOST_DAYS:
            faults.append(Fault("expires_in_days", "invalid_days", f"from 1 to {MOST_DAYS}"))
        if faults:
            raise Invalid("the key has faults", faults=faults)
        if principal.key_id is not None:
            raise Forbidden("a key makes no keys: log in for that", code="needs_log_in")
        text, now = new_key_text(), datetime.now(UTC)
        key = ApiKey(
            id=f"key-{secrets.token_hex(12)}",
            project_id=principal.project_id,
            user_id=self._owner(principal, username),
            name=name,
            hash=digest_of(text),
            hint=hint_of(text),
            scopes=tuple(sorted(set(scopes))),
            created_by=principal.user_id,
            created_at=now,
            expires_at=None if days is None else now + timedelta(days=days),
        )
        self._keys.add(key)
        return key, text

    def keys(self, principal: Principal) -> Sequence[ApiKey]:
        return self._keys.list(principal.project_id, _whose(principal))

    def revoke(self, principal: Principal, key_id: str) -> None:
        if not self._keys.revoke(principal.project_id, key_id, datetime.now(UTC), _whose(principal)):
            raise NotFound(f"no key {key_id[:80]!r} in this project", code="key_not_found")
        self._callers.forget()

    def rotate_signing_key(self) -> str:
        return self._tokens.rotate()

    def _owner(self, principal: Principal, username: str | None) -> str:
        if username is None or username == principal.username:
            return principal.user_id
        if not principal.role.covers(Role.ADMIN):
            raise Forbidden("only an admin makes keys for a service account")
        user = self._users.by_username(username)
        if user is None or self._users.member(user.id, principal.project_id) is None:
            raise NotFound(f"no member {username[:80]!r} in this project", code="member_not_found")
        if not user.is_service:  # who acts as a person is that person
            raise Forbidden("keys of a person are made by that person")
        return user.id


def _whose(principal: Principal) -> str | None:
    return None if principal.role.covers(Role.ADMIN) else principal.user_id
