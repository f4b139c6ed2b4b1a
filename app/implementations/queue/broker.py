"""The Celery app that the sender of doorbells and the worker share."""

from collections.abc import Sequence
from pathlib import Path

from celery import Celery
from kombu import Exchange, Queue

CONNECT_SECONDS = 2.0


def queue_name(queue: str) -> str:
    """The broker's name of a queue of jobs."""
    return f"training.{queue}"


def celery_app(redis_url: str | None, instance_dir: Path, queues: Sequence[str]) -> Celery:
    """Unconnected; its worker serves ``queues``. Without Redis, messages are files in ``instance_dir/broker``."""
    names = [queue_name(queue) for queue in queues]
    celery = Celery("llm-finetuning", set_as_current=False)
    celery.conf.update(
        # The default exchange needs no bindings, which kombu's filesystem channel would write in place.
        task_queues=[Queue(name, Exchange(""), routing_key=name) for name in names],
        task_default_queue=names[0],
        task_default_exchange="",
        task_default_routing_key=names[0],
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        result_backend=None,
        # A message is a doorbell: the row is the truth, so one that is lost costs a poll, never a job.
        task_acks_late=False,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        worker_pool="threads",  # the worker's own threads and a fork do not mix
        worker_concurrency=1,
        # Cancel is a mark on the row; Celery's remote control is not used.
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=CONNECT_SECONDS,
        **(_redis(redis_url) if redis_url else _folder(instance_dir / "broker")),
    )
    return celery


def _redis(url: str) -> dict[str, object]:
    return {
        "broker_url": url,
        # The sender tries twice and gives up: a request does not wait for a broker that is down.
        "broker_transport_options": {
            "socket_connect_timeout": CONNECT_SECONDS,
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
        },
    }


def _folder(folder: Path) -> dict[str, object]:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return {
        "broker_url": "filesystem://localhost",  # kombu warns of a URL without a host
        "broker_transport": "app.implementations.queue.filesystem:Transport",
        "broker_transport_options": {
            "data_folder_in": str(folder),
            "data_folder_out": str(folder),
            "control_folder": str(folder),
            "polling_interval": 0.1,
        },
    }
