"""Idempotency-Key: a request that is sent again is answered again, and done once."""

import logging
import re
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from app.core.entities.api_keys import digest_of
from app.core.entities.idempotency import KeptAnswer, KeptRequest
from app.core.entities.identity import Principal
from app.core.errors import Conflict, Fault, Invalid, Unavailable
from app.core.interfaces.idempotency import IdempotencyRepository
from app.core.interfaces.services.people import Idempotency

log = logging.getLogger(__name__)

KEY = re.compile(r"[\x21-\x7e]{1,255}")
LEASE = timedelta(minutes=5)  # longer than one takes; so long what was killed is not sent again
RETRY_SECONDS = 1


class IdempotencyService(Idempotency):
    """``keep_seconds``: how long answers are kept."""

    def __init__(
        self,
        repository: IdempotencyRepository,
        keep_seconds: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._repository = repository
        self._kept_for = timedelta(seconds=keep_seconds)
        self._clock = clock

    def begin(self, principal: Principal, where: str, key: str, fingerprint: str) -> KeptRequest:
        if not KEY.fullmatch(key):
            wanted = "1 to 255 printable ASCII characters without spaces"
            fault = Fault("Idempotency-Key", "invalid_idempotency_key", wanted)
            raise Invalid(f"the Idempotency-Key must be {wanted}", code="invalid_idempotency_key", faults=[fault])
        now = self._clock()
        request = KeptRequest(
            id=digest_of("\n".join((principal.project_id, principal.key_id or principal.user_id, where, key))),
            project_id=principal.project_id,
            fingerprint=fingerprint,
            holder=secrets.token_hex(8),
            expires_at=now + LEASE,
        )
        before = self._repository.begin(request, now)
        if before is None:
            return request
        if before.fingerprint != fingerprint:
            message = "this Idempotency-Key came with another body: take a new key for a new request"
            raise Invalid(message, code="idempotency_key_reused")
        if before.answer is None:
            message = "the request with this Idempotency-Key is being done: ask again shortly"
            raise Conflict(message, code="idempotency_in_progress", retry_after=RETRY_SECONDS)
        if before.answer.body is None:
            message = "this was made by an earlier request with this Idempotency-Key; its secret was shown once"
            raise Conflict(message, code="idempotency_secret_shown")
        return before

    def keep(self, request: KeptRequest, answer: KeptAnswer) -> None:
        done = replace(request, answer=answer, expires_at=self._clock() + self._kept_for)
        try:
            self._repository.keep(done)
        except Unavailable:
            log.warning("the answer to a request with an Idempotency-Key could not be kept")

    def release(self, request: KeptRequest) -> None:
        try:
            self._repository.release(request)
        except Unavailable:
            log.warning("a request with an Idempotency-Key stays held until its lease ends")
