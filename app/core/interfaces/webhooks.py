"""Where webhooks and their deliveries are kept, what sends them, and what keeps their secrets."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime

from app.core.entities.webhooks import Delivery, Outcome, Webhook


class WebhookRepository(ABC):
    """Endpoints, and the outbox. A job that ends puts its deliveries there in the same transaction
    (``JobRepository``)."""

    @abstractmethod
    def add(self, webhook: Webhook, most: int) -> None:
        """``Conflict`` (too_many_webhooks) where the project has ``most``."""

    @abstractmethod
    def get(self, project_id: str, webhook_id: str) -> Webhook | None: ...

    @abstractmethod
    def list(self, project_id: str) -> Sequence[Webhook]:
        """Oldest first."""

    @abstractmethod
    def change(self, project_id: str, webhook_id: str, changes: Mapping[str, object]) -> Webhook | None:
        """Of fields by name; None if there is no such endpoint."""

    @abstractmethod
    def remove(self, project_id: str, webhook_id: str) -> bool:
        """With its deliveries. Whether it was there."""

    @abstractmethod
    def queue(self, delivery: Delivery) -> bool:
        """False if the endpoint is gone."""

    @abstractmethod
    def deliveries(
        self, project_id: str, webhook_id: str, limit: int, after: str | None = None
    ) -> Sequence[Delivery]:
        """Newest first; ``after`` is the event of the last one of the page before (``Invalid``: none)."""

    @abstractmethod
    def claim_due(self, now: datetime, most: int) -> Sequence[tuple[Webhook, Delivery]]:
        """At most one for each enabled endpoint, longest due first, each to one caller alone.

        They count as attempted, and are due again after the delay: whoever dies with one loses none.
        """

    @abstractmethod
    def finish(self, delivery: Delivery, outcome: Outcome, at: datetime) -> None:
        """Write down how the attempt that was claimed went; nothing, if another has begun since.

        What is over with that endpoint and older than ``KEPT_FOR`` goes.
        """


class WebhookSender(ABC):
    @abstractmethod
    def fault(self, url: str) -> str | None:
        """What is wrong with the address, as far as it says so itself."""

    @abstractmethod
    def post(self, url: str, headers: Mapping[str, str], body: str) -> Outcome:
        """Sends it to public addresses alone, and to those that the operator has allowed. Never raises."""


class SecretBox(ABC):
    """For secrets that have to be read again."""

    @abstractmethod
    def seal(self, secret: str) -> str: ...

    @abstractmethod
    def open(self, sealed: str) -> str:
        """``Unavailable`` (secret_unreadable) for what was sealed with another key."""
