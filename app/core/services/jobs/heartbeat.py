"""How an attempt keeps its hold on a job, and how a lost one is found."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TypeVar

from app.core.entities.jobs import Claim, JobState, Lease, Order
from app.core.errors import StaleAttempt, Unavailable
from app.core.interfaces.operations import TrainerHandle
from app.core.interfaces.storage import JobRepository
from app.utils.clock import boottime

T = TypeVar("T")
RETRY_SECONDS = 0.5
log = logging.getLogger(__name__)


class Heartbeat:
    """Renews a claim from a thread of its own, inside a ``with`` block, so that no slow step loses the job.

    The lease ends at a point of the boot-time clock read *before* the row is written: whoever finds the row
    unchanged for a lease knows that the trainer's own deadline has passed.
    """

    def __init__(self, jobs: JobRepository, claim: Claim, read_before: float, seconds: float) -> None:
        self._jobs = jobs
        self._claim = claim
        self._seconds = seconds  # between renewals
        self.deadline = read_before + claim.lease_seconds
        self.order = Order.CANCEL if claim.job.cancel_requested else Order.GO_ON
        self.lost = False
        self._handle: TrainerHandle | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat {claim.job.id}", daemon=True)

    def __enter__(self) -> Heartbeat:
        if boottime() >= self.deadline - self._seconds:  # the database kept the claim waiting
            self._beat()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def vouch_for(self, handle: TrainerHandle | None) -> None:
        """From now on renewals reach this trainer too; None: there is none any more."""
        self._handle = handle
        if handle is not None:
            handle.renew(self.deadline)

    def persist(self, write: Callable[[], T]) -> T:
        """Write, again and again while the database does not answer and the lease lasts; then ``StaleAttempt``."""
        while True:
            try:
                return write()
            except Unavailable:
                if self.lost or boottime() >= self.deadline:
                    raise StaleAttempt("the database did not answer until the lease ran out") from None
                log.warning("job %s: the database does not answer, trying again", self._claim.job.id)
                time.sleep(RETRY_SECONDS)

    def _run(self) -> None:
        pause = self._seconds
        while not self.lost and not self._ended.wait(pause):
            pause = self._seconds if self._beat() else min(RETRY_SECONDS, self._seconds)

    def _beat(self) -> bool:
        """One renewal; False if it did not come through."""
        now = boottime()
        try:
            self.order = self._jobs.renew(self._claim.job.id, self._claim.fence)
        except StaleAttempt:
            self.lost = True
            return False
        except Exception as error:  # noqa: BLE001 - while the lease lasts the next try may do better
            log.warning("job %s: the lease could not be renewed: %r", self._claim.job.id, error)
            self.lost = now >= self.deadline
            return False
        self.deadline = now + self._claim.lease_seconds
        if (handle := self._handle) is not None:
            handle.renew(self.deadline)
        return True


class Reaper:
    """Takes jobs from owners who are not heard of for a lease and a margin, by this process' own clock."""

    def __init__(self, jobs: JobRepository, max_attempts: int) -> None:
        self._jobs = jobs
        self._max_attempts = max_attempts
        self._seen: Mapping[str, tuple[Lease, float]] = {}

    def scan(self) -> None:
        now = time.monotonic()
        before, self._seen = self._seen, {}
        seen: dict[str, tuple[Lease, float]] = {}
        for lease in self._jobs.leases():
            known = before.get(lease.job_id)
            since = known[1] if known is not None and known[0] == lease else now
            seen[lease.job_id] = (lease, since)
            if now - since >= lease.lease_seconds + margin(lease.lease_seconds):
                self._release(lease)
        self._seen = seen

    def _release(self, lease: Lease) -> None:
        state = self._jobs.release_lost(lease, self._max_attempts)
        if state is not None:
            level = logging.ERROR if state is JobState.FAILED else logging.WARNING
            log.log(level, "job %s: claim %d is lost, now %s", lease.job_id, lease.fence, state)


def margin(lease_seconds: float) -> float:
    """For clocks that differ in speed, and for a process to die in. Seconds."""
    return 0.5 + lease_seconds / 10
