"""What the service offers around callers: who they are, what they may do, how much of it, what they did."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.core.entities.api_keys import ApiKey
from app.core.entities.audit import AuditEntry, AuditFilter, AuditPage
from app.core.entities.idempotency import KeptAnswer, KeptRequest
from app.core.entities.identity import (
    DEFAULT_PROJECT_ID,
    AccessToken,
    Member,
    Membership,
    Principal,
    Project,
    Role,
    Scope,
    User,
)
from app.core.entities.limits import LimitReport, ProjectLimits, Reading


class Identity(ABC):
    """Tells who is calling."""

    @abstractmethod
    def login(self, username: str, password: str, project_id: str | None = None) -> AccessToken:
        """Log a user in, to that project or else to their first.

        ``Unauthorized`` (invalid_credentials), after the same work whether or not there is such a user; once the
        password is known to be right, not_a_member. ``TooMany`` (too_many_attempts), whether or not there is one.
        """

    @abstractmethod
    def refresh(self, refresh_token: str) -> AccessToken:
        """Exchange a refresh token, which is used up, for a new access token and a new refresh token.

        ``Unauthorized`` (refresh_token_invalid) for one that is unknown, expired or revoked. One that was used
        before revokes the session: somebody else may have it.
        """

    @abstractmethod
    def logout(self, principal: Principal) -> None:
        """Revoke the session: its access tokens and its refresh token. An API key has none."""

    @abstractmethod
    def public_keys(self) -> Sequence[Mapping[str, Any]]:
        """Return the public keys of access tokens: as ``TokenIssuer.public_keys``."""

    @abstractmethod
    def authenticate(self, token: str) -> Principal:
        """Tell who holds the access token or the API key, with the role that they have now.

        ``Unauthorized`` with code token_expired, token_invalid, key_expired or key_invalid. Of an external
        issuer's token also user_not_linked and not_a_member, or ``Unavailable`` (issuer_unavailable).
        """


class Accounts(ABC):
    """Keeps the people who may call the service."""

    @abstractmethod
    def create_user(
        self,
        username: str,
        password: str | None,
        role: Role,
        project_id: str = DEFAULT_PROJECT_ID,
        subject: str | None = None,
    ) -> User:
        """Add a user as a member of the project; with the role operator as its admin, and an operator everywhere.

        They log in with the password, or at the external issuer, which calls them ``subject``. ``Invalid`` with
        every fault; ``Conflict`` (username_taken, subject_taken, no_issuer); ``NotFound`` without the project.
        """

    @abstractmethod
    def ensure_admin(self, password: str | None) -> str | None:
        """With no user yet, add ``admin``, an operator; return the password if a random one was made."""

    @abstractmethod
    def users(self) -> Sequence[tuple[User, Sequence[Membership]]]:
        """List all users, each with their memberships."""

    @abstractmethod
    def change_password(self, principal: Principal, old: str, new: str) -> None:
        """Change the caller's own password. Every session of theirs ends.

        ``Forbidden`` (wrong_password; needs_log_in for a key: it may not take the account over), ``TooMany``
        (too_many_attempts, with those to log in), ``Invalid``.
        """

    @abstractmethod
    def set_password(self, username: str, password: str) -> None:
        """Set the password of anybody but a service account. Every session of theirs ends.

        ``NotFound``, ``Invalid``.
        """

    @abstractmethod
    def link(self, username: str, subject: str | None) -> User:
        """Link a user to what the external issuer calls them; None: to nobody there.

        ``NotFound``, ``Conflict`` (subject_taken, no_issuer).
        """

    @abstractmethod
    def disable(self, username: str) -> User:
        """Let a user call no more. Again is no error.

        Sessions end and keys are revoked, for good; their rows stay. ``NotFound`` (user_not_found), ``Conflict``
        (last_operator).
        """

    @abstractmethod
    def enable(self, username: str) -> User:
        """Let a user log in again, with the roles that they had. ``NotFound`` (user_not_found)."""

    @abstractmethod
    def sign_out(self, username: str) -> int:
        """End every session of the user, and answer how many there were. ``NotFound`` (user_not_found)."""


class Projects(ABC):
    """Keeps projects and their members. What it changes in a project it changes in the principal's own."""

    @abstractmethod
    def projects(self, principal: Principal) -> Sequence[Project]:
        """List all projects for an operator, for anybody else those that they are members of; by id."""

    @abstractmethod
    def create(self, project_id: str, admin: str) -> Project:
        """Add a project with that user as its first admin.

        ``Conflict`` (project_taken), ``NotFound`` (user_not_found).
        """

    @abstractmethod
    def members(self, principal: Principal) -> Sequence[Member]:
        """List the members of the principal's project."""

    @abstractmethod
    def set_role(self, principal: Principal, username: str, role: Role) -> Member:
        """Set the role of a member, or of a user who becomes one.

        ``NotFound`` (user_not_found), for a service account of another project too; ``Conflict`` (last_admin).
        """

    @abstractmethod
    def remove(self, principal: Principal, username: str) -> None:
        """Remove a member; what they made stays.

        Their keys for this project are revoked, and stay so if they come back. ``NotFound`` (member_not_found),
        ``Conflict`` (last_admin).
        """

    @abstractmethod
    def create_service_account(self, principal: Principal, name: str, role: Role) -> Member:
        """Add the service account ``name@project``, which calls with keys alone.

        ``Conflict`` (username_taken).
        """

    @abstractmethod
    def acting_in(self, operator: Principal, project_id: str) -> Principal:
        """Return the host's operator in that project. ``NotFound`` (project_not_found)."""


class ApiKeys(ABC):
    """Makes API keys, shown once, and revokes them."""

    @abstractmethod
    def create(
        self,
        principal: Principal,
        name: str,
        *,
        username: str | None = None,
        scopes: Sequence[Scope] = (),
        days: int | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key for the caller, or, by an admin, for a service account of the project.

        Its text is told this once. A key makes no keys: one that leaked must not outlive its revocation.
        ``Invalid`` with every fault, ``Forbidden``, ``NotFound`` (member_not_found).
        """

    @abstractmethod
    def keys(self, principal: Principal) -> Sequence[ApiKey]:
        """List the caller's keys in this project, for an admin all of the project; newest first."""

    @abstractmethod
    def revoke(self, principal: Principal, key_id: str) -> None:
        """Revoke a key. Again is no error.

        ``NotFound`` (key_not_found) for one that the caller does not see, too.
        """

    @abstractmethod
    def rotate_signing_key(self) -> str:
        """Rotate the key that signs access tokens: as ``TokenIssuer.rotate``."""


class Limits(ABC):
    """Reads and sets the limits of projects."""

    @abstractmethod
    def report(self, principal: Principal, project_id: str) -> LimitReport:
        """Report a project's limits and use.

        ``NotFound`` (project_not_found) for another project too, but for an operator.
        """

    @abstractmethod
    def change(self, principal: Principal, project_id: str, changes: Mapping[str, int | None]) -> LimitReport:
        """Set fields of ProjectLimits, for all that comes from now on; None: what the service's settings say."""

    @abstractmethod
    def recent(self, principal: Principal) -> ProjectLimits:
        """Return the limits of the caller's project, as they were some seconds ago.

        So that not every request looks into the database.
        """


class Rates(ABC):
    """Counts requests, tokens and log-ins over time."""

    @abstractmethod
    def count(self, caller: Principal | None, address: str) -> Sequence[Reading]:
        """Count one request; return the readings of its rates, up to the first that refuses it."""

    @abstractmethod
    def count_log_in(self, address: str) -> Sequence[Reading]:
        """Count one log-in from that address; return the readings."""

    @abstractmethod
    def attempt(self, username: str) -> None:
        """Count one attempt at an account, which need not exist. ``TooMany`` (too_many_attempts)."""

    @abstractmethod
    def forgive(self, username: str) -> None:
        """Forget the attempts so far: the last one had the right password."""

    @abstractmethod
    def tokens(self, caller: Principal) -> Sequence[Reading]:
        """Return what is left of each rate of tokens."""

    @abstractmethod
    def admit(self, caller: Principal) -> None:
        """Let a request in while the window has tokens left; what it takes is known once it is answered.

        ``TooMany`` (tokens_used_up).
        """

    @abstractmethod
    def spend(self, caller: Principal, tokens: int) -> None:
        """Count the tokens that a request took."""


class Idempotency(ABC):
    """Answers a request that is sent again as it was answered before."""

    @abstractmethod
    def begin(self, principal: Principal, where: str, key: str, fingerprint: str) -> KeptRequest:
        """Find the request as it was sent before, with its answer; else begin it.

        One without an answer is to be done, and to end with ``keep`` or ``release``. ``Invalid``
        (invalid_idempotency_key, idempotency_key_reused), ``Conflict`` (idempotency_in_progress,
        idempotency_secret_shown).
        """

    @abstractmethod
    def keep(self, request: KeptRequest, answer: KeptAnswer) -> None:
        """Keep the answer. Never raises: what was done is done, and its answer is on the way."""

    @abstractmethod
    def release(self, request: KeptRequest) -> None:
        """Forget a request that was not done, or may go otherwise the next time. Never raises."""


class Audit(ABC):
    """Records every change, and shows admins the records."""

    @abstractmethod
    def record(self, entry: AuditEntry) -> None:
        """Keep an entry.

        The change has been made: where the database cannot take the entry, the log has the whole of it.
        """

    @abstractmethod
    def page(
        self,
        principal: Principal,
        wanted: AuditFilter,
        *,
        project: str | None = None,
        everything: bool = False,
        limit: int = 20,
        after: int | None = None,
    ) -> AuditPage:
        """List entries of the project, newest first; an operator may name another, or ask for ``everything``.

        ``NotFound`` (project_not_found) and ``Forbidden`` for everybody else.
        """

    @abstractmethod
    def all(
        self, principal: Principal, wanted: AuditFilter, *, project: str | None = None, everything: bool = False
    ) -> Iterator[AuditEntry]:
        """Read what ``page`` has on all its pages, as it is taken."""
