"""The doorbell through Celery."""

import logging
from collections.abc import Sequence
from pathlib import Path

from app.core.interfaces.operations import DOORBELL, JobQueue
from app.implementations.queue.broker import celery_app, queue_name

log = logging.getLogger(__name__)


class CeleryQueue(JobQueue):
    """Sends the task by its name, so that nothing here imports tasks."""

    def __init__(self, redis_url: str | None, instance_dir: Path, queues: Sequence[str]) -> None:
        self._celery = celery_app(redis_url, instance_dir, queues)
        self._queues = queues

    def ring(self, job_id: str, queue: str) -> None:
        try:
            self._celery.send_task(DOORBELL, args=[job_id], queue=queue_name(queue), retry=False)
        except Exception as error:  # noqa: BLE001 - whatever the broker's trouble, workers poll
            log.warning("job %s: the broker did not take the doorbell, workers will poll: %s", job_id, error)

    def check(self) -> str | None:
        try:
            with self._celery.connection_for_write() as connection:
                connection.default_channel.queue_declare(queue_name(self._queues[0]))
        except Exception as error:  # noqa: BLE001 - any of them is the answer
            return f"the broker does not answer ({type(error).__name__})"
        return None
