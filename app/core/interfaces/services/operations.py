"""What the service offers to those who run it or are told of its events."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.core.entities.identity import Principal
from app.core.entities.jobs import JobState
from app.core.entities.webhooks import Delivery, DeliveryPage, Webhook


@dataclass(frozen=True, slots=True)
class Readiness:
    """``reasons`` say why it is not ready. ``engines`` are the base models that answer: none is no reason."""

    ready: bool
    reasons: Sequence[str]
    engines: Sequence[str]


class Monitoring(ABC):
    """Tells whether the service can do its work, and how much of it there is."""

    @abstractmethod
    def ready(self) -> Readiness:
        """Check the database, the queue and the engines."""

    @abstractmethod
    def database_problem(self) -> str | None:
        """Return what to do, unless the database answers and has this code's schema."""

    @abstractmethod
    def require_database(self) -> None:
        """Refuse to go on without the database: ``Unavailable`` (database_not_ready) with what to do."""

    @abstractmethod
    def job_counts(self) -> Mapping[JobState, int]:
        """Count jobs by state, over all projects."""


class Webhooks(ABC):
    """Keeps a project's webhooks. ``NotFound`` (webhook_not_found) for what another project has, too."""

    @abstractmethod
    def create(
        self, principal: Principal, url: str, events: Sequence[str], enabled: bool = True
    ) -> tuple[Webhook, str]:
        """Add a webhook; return it with its secret, which is told this once.

        ``Invalid``, ``Conflict`` (too_many_webhooks).
        """

    @abstractmethod
    def webhooks(self, principal: Principal) -> Sequence[Webhook]:
        """List the project's webhooks."""

    @abstractmethod
    def webhook(self, principal: Principal, webhook_id: str) -> Webhook:
        """Return a webhook."""

    @abstractmethod
    def change(
        self,
        principal: Principal,
        webhook_id: str,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        enabled: bool | None = None,
    ) -> Webhook:
        """Change a webhook. What waits for one that is disabled is sent when it is enabled again. ``Invalid``."""

    @abstractmethod
    def remove(self, principal: Principal, webhook_id: str) -> None:
        """Remove a webhook, with what waits for it."""

    @abstractmethod
    def rotate_secret(self, principal: Principal, webhook_id: str) -> tuple[Webhook, str]:
        """Make a new secret, told this once; the old one signs beside it for a day."""

    @abstractmethod
    def ping(self, principal: Principal, webhook_id: str) -> Delivery:
        """Send it an event that says nothing, as any other is sent."""

    @abstractmethod
    def deliveries(
        self, principal: Principal, webhook_id: str, *, limit: int = 20, after: str | None = None
    ) -> DeliveryPage:
        """List the deliveries of a webhook, newest first, from the one after that of the event ``after`` on.

        ``Invalid`` where there is none.
        """


class WebhookDelivery(ABC):
    """Sends what webhooks are to be told, at least once. Safe in many workers."""

    @abstractmethod
    def deliver_due(self) -> bool:
        """Send one round of what is due; return whether there was anything.

        To be called each poll interval, and again while it is true.
        """
