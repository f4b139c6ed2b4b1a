"""Who is asking: log-ins, their tokens, and API keys."""

import logging
import re
import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from app.core.entities.api_keys import PREFIX, ApiKey, digest_of, is_key_text, random_text
from app.core.entities.identity import AccessToken, Member, Principal, Session, external_id
from app.core.errors import Unauthorized, Unavailable
from app.core.interfaces.operations import ExternalIssuer, PasswordHasher, TokenIssuer
from app.core.interfaces.services.people import Identity
from app.core.interfaces.stores import People
from app.core.services.people.callers import RecentCallers
from app.core.services.people.rates import RateService

log = logging.getLogger(__name__)

USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
REFRESH_TOKEN = re.compile(r"llmftr_([0-9A-Za-z]{32})([0-9A-Za-z]{32})", re.ASCII)
USED_EVERY = timedelta(minutes=1)  # that a key's last use is written down


class IdentityService(Identity):
    def __init__(
        self,
        people: People,
        passwords: PasswordHasher,
        tokens: TokenIssuer,
        callers: RecentCallers,
        rates: RateService,
        token_seconds: int,
        session_seconds: int,
        external: ExternalIssuer | None = None,
        project_claim: str = "project",
    ) -> None:
        self._users = people.users
        self._keys = people.keys
        self._sessions = people.sessions
        self._passwords = passwords
        self._tokens = tokens
        self._callers = callers
        self._rates = rates
        self._token_seconds = token_seconds
        self._session_seconds = session_seconds
        self._external = external
        self._project_claim = project_claim

    def login(self, username: str, password: str, project_id: str | None = None) -> AccessToken:
        self._rates.attempt(username)
        decoy = self._decoy
        user = self._users.by_username(username) if USERNAME.fullmatch(username) else None
        matches = self._passwords.matches(password, user.password_hash if user else decoy)
        may_call = user is not None and matches and user.disabled_at is None
        memberships = self._users.memberships(user.id) if user and may_call else ()
        if user is None or not memberships:
            raise Unauthorized("the username or the password is wrong", code="invalid_credentials")
        self._rates.forgive(username)
        project = project_id or memberships[0].project_id
        if project not in {membership.project_id for membership in memberships}:
            raise Unauthorized(f"{username} is no member of a project {project[:80]}", code="not_a_member")
        handle, secret, now = random_text(32), random_text(32), datetime.now(UTC)
        session = Session(
            id=str(uuid.uuid4()),
            user_id=user.id,
            project_id=project,
            handle_hash=digest_of(handle),
            secret_hash=digest_of(secret),
            created_at=now,
            expires_at=now + timedelta(seconds=self._session_seconds),
        )
        self._sessions.add(session)
        # Who changes the password ends all sessions afterwards: one that came in between would outlive it.
        if self._users.by_username(username) != user:
            self._sessions.revoke(session.id, datetime.now(UTC))
            raise Unauthorized("the username or the password is wrong", code="invalid_credentials")
        return self._access(session, handle, secret)

    def refresh(self, refresh_token: str) -> AccessToken:
        match = REFRESH_TOKEN.fullmatch(refresh_token)
        refused = Unauthorized("the refresh token is not valid: log in again", code="refresh_token_invalid")
        if match is None:
            raise refused
        secret, now = random_text(32), datetime.now(UTC)
        session = self._sessions.rotate(digest_of(match[1]), digest_of(match[2]), digest_of(secret), now)
        if session is None or not session.is_live(now):
            if session is not None and session.revoked_at == now:
                log.warning("a used refresh token came again: session %s is revoked", session.id)
                self._callers.forget()
            raise refused
        return self._access(session, match[1], secret)

    def logout(self, principal: Principal) -> None:
        if principal.session_id is not None:
            self._sessions.revoke(principal.session_id, datetime.now(UTC))
            self._callers.forget()

    def public_keys(self) -> Sequence[Mapping[str, Any]]:
        return self._tokens.public_keys()

    def authenticate(self, token: str) -> Principal:
        digest = digest_of(token)
        known = self._callers.get(digest)
        if known is None:
            now = time.monotonic()
            if token.startswith(PREFIX):
                known = self._of_key(token, digest)
            elif self._external is not None and self._external.has_issued(token):
                known = self._of_external_token(token, self._external)
            else:
                known = self._of_access_token(token)
            self._callers.keep(digest, known, now)
        return known

    def _of_access_token(self, token: str) -> Principal:
        claims = self._tokens.verify(token)
        user_id, project_id, session_id = claims["sub"], claims.get("project"), claims.get("sid")
        refused = Unauthorized("the access token is not valid: log in again", code="token_invalid")
        if not isinstance(project_id, str) or not isinstance(session_id, str):
            raise refused
        session = self._sessions.get(session_id)
        if session is None or not session.is_live(datetime.now(UTC)) or session.user_id != user_id:
            raise refused
        member = self._member(user_id, project_id) if session.project_id == project_id else None
        if member is None:
            raise Unauthorized("the access token's user has left the project", code="token_invalid")
        return _principal(member, project_id, session_id=session_id)

    def _of_external_token(self, token: str, issuer: ExternalIssuer) -> Principal:
        """The issuer says who it is. What they may do is said here: roles are those of memberships."""
        claims = issuer.verify(token)
        user = self._users.by_external_id(external_id(issuer.url, claims["sub"]))
        if user is None:
            message = f"no user here is linked to the subject {claims['sub'][:80]!r}: ask an operator"
            raise Unauthorized(message, code="user_not_linked")
        project = claims.get(self._project_claim)
        if project is None:
            project = next((one.project_id for one in self._users.memberships(user.id)), None)
        member = self._member(user.id, project) if isinstance(project, str) else None
        if member is None:
            raise Unauthorized("the access token's user is no member of its project", code="not_a_member")
        return _principal(member, str(project))

    def _member(self, user_id: str, project_id: str) -> Member | None:
        member = self._users.member(user_id, project_id)
        return None if member is None or member.user.disabled_at is not None else member

    def _of_key(self, text: str, digest: str) -> Principal:
        now = datetime.now(UTC)
        key = self._keys.by_hash(digest) if is_key_text(text) else None
        if key is None or key.revoked_at is not None:
            raise Unauthorized("the API key is not valid", code="key_invalid")
        if not key.is_live(now):
            raise Unauthorized(f"the API key {key.hint} has expired: make a new one", code="key_expired")
        member = self._member(key.user_id, key.project_id)
        if member is None:
            raise Unauthorized("the API key's owner has left the project", code="key_invalid")
        self._write_down_use(key, now)
        scopes = frozenset(key.scopes) if key.scopes else None
        return _principal(member, key.project_id, scopes=scopes, key_id=key.id)

    def _write_down_use(self, key: ApiKey, now: datetime) -> None:
        if key.last_used_at is None or now - key.last_used_at >= USED_EVERY:
            try:
                self._keys.used(key.id, now)
            except Unavailable:  # a full disk keeps nobody from reading
                log.warning("the last use of key %s could not be written", key.id)

    def _access(self, session: Session, handle: str, secret: str) -> AccessToken:
        claims = {"sub": session.user_id, "project": session.project_id, "sid": session.id}
        token = self._tokens.issue(claims, self._token_seconds)
        return AccessToken(token, self._token_seconds, f"llmftr_{handle}{secret}")

    @cached_property
    def _decoy(self) -> str:
        return self._passwords.hash(secrets.token_hex(16))


def _principal(member: Member, project_id: str, **how: object) -> Principal:
    return Principal(member.user.id, member.user.username, project_id, member.reach, **how)  # type: ignore[arg-type]
