"""Where requests under an Idempotency-Key are kept."""

from abc import ABC, abstractmethod
from datetime import datetime

from app.core.entities.idempotency import KeptRequest


class IdempotencyRepository(ABC):
    @abstractmethod
    def begin(self, request: KeptRequest, now: datetime) -> KeptRequest | None:
        """None, and it is kept; or the one of that id which is kept already and has not expired. Those of its
        project that have expired go."""

    @abstractmethod
    def keep(self, request: KeptRequest) -> None:
        """Its answer and its time, unless another holds it by now."""

    @abstractmethod
    def release(self, request: KeptRequest) -> None:
        """Forget it, unless another holds it by now."""
