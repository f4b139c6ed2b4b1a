"""Requests under an Idempotency-Key in memory: a twin for tests."""

from datetime import datetime

from app.core.entities.idempotency import KeptRequest
from app.core.interfaces.idempotency import IdempotencyRepository
from app.repositories.memory import locked


class MemoryIdempotencyRepository(IdempotencyRepository):
    def __init__(self) -> None:
        self.kept: dict[str, KeptRequest] = {}

    @locked
    def begin(self, request: KeptRequest, now: datetime) -> KeptRequest | None:
        self.kept = {one.id: one for one in self.kept.values() if one.expires_at > now}
        before = self.kept.setdefault(request.id, request)
        return None if before is request else before

    @locked
    def keep(self, request: KeptRequest) -> None:
        if self._is_held(request):
            self.kept[request.id] = request

    @locked
    def release(self, request: KeptRequest) -> None:
        if self._is_held(request):
            del self.kept[request.id]

    def _is_held(self, request: KeptRequest) -> bool:
        return request.id in self.kept and self.kept[request.id].holder == request.holder
