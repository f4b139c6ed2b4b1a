"""No doorbell: the foreground runs its job itself."""

from app.core.interfaces.operations import JobQueue


class InlineQueue(JobQueue):
    def ring(self, job_id: str, queue: str) -> None:
        """Nobody waits for it."""

    def check(self) -> str | None:
        return None
