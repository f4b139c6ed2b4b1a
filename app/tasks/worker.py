"""The worker: a thread for each slot carries jobs, a doorbell wakes them; two more watch leases and send webhooks.

The message is a doorbell only. Its task does no work, so Celery's pool never holds a job, and a slot that no
message wakes looks for itself each poll interval.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from celery import Celery, signals
from flask import Flask

from app.core.errors import Unavailable
from app.core.interfaces.operations import DOORBELL
from app.core.services.operations.webhook_delivery import WebhookDeliveryService
from app.extensions import current_services

LAST_SECONDS = 1.0  # for the last words about trainers that had drain_seconds to end

log = logging.getLogger(__name__)


def make_celery(
    app: Flask, celery: Celery, *, slots: Sequence[str | None], poll_seconds: float, drain_seconds: float
) -> Celery:
    """Give the Celery app its task, and a worker that runs it the slots: the GPUs of each, None for any."""
    worker = Worker(app, slots, poll_seconds, drain_seconds)

    @celery.task(name=DOORBELL)
    def ring(job_id: str) -> None:
        worker.ring()

    # With a receiver Celery leaves logging alone; else it would set the root logger to its own level, WARNING.
    signals.setup_logging.connect(_keep_logging, weak=False)
    # Not worker_ready, which waits for the broker: jobs are found by polling without it.
    signals.worker_init.connect(worker.start, weak=False)
    signals.worker_shutting_down.connect(worker.drain, weak=False)
    signals.worker_shutdown.connect(worker.join, weak=False)
    return celery


def _keep_logging(**_: Any) -> None:
    """``create_app`` has set it up, with the format and the level of the settings."""


class Worker:
    """Its methods take and ignore the arguments of Celery's signals."""

    def __init__(self, app: Flask, slots: Sequence[str | None], poll_seconds: float, drain_seconds: float) -> None:
        self._app = app
        self._poll_seconds = poll_seconds
        self._drain_seconds = drain_seconds
        self._doorbell = threading.Event()
        self._ending = threading.Event()
        slot_threads = [
            threading.Thread(target=self._slot, args=(number, gpus), name=f"slot {number}")
            for number, gpus in enumerate(slots)
        ]
        with app.app_context():
            found = current_services()
        self._execution = found.execution
        watch = self._each_poll("leases", self._execution.watch_leases)
        send = self._each_poll("webhooks", lambda: self._send(found.webhook_delivery))
        self._threads = [*slot_threads, watch, send]

    def ring(self) -> None:
        self._doorbell.set()

    def start(self, **_: Any) -> None:
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def drain(self, **_: Any) -> None:
        """In a signal handler: it only sets marks."""
        self._execution.drain()
        self._ending.set()
        self._doorbell.set()

    def join(self, **_: Any) -> None:
        self.drain()
        until = time.monotonic() + self._drain_seconds + LAST_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _slot(self, number: int, gpus: str | None) -> None:
        owner = f"{socket.gethostname()}:{os.getpid()}:{number}"
        with self._app.app_context():
            while not self._ending.is_set():
                try:
                    while self._execution.run_next(owner, gpus=gpus):
                        pass
                    self._execution.prepare(gpus)
                except Unavailable as error:
                    log.warning("%s: %s", owner, error)
                except Exception:
                    log.exception("%s", owner)
                self._doorbell.wait(self._poll_seconds)
                self._doorbell.clear()
            self._execution.dismiss()

    def _send(self, delivery: WebhookDeliveryService) -> None:
        while not self._ending.is_set() and delivery.deliver_due():
            pass

    def _each_poll(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            with self._app.app_context():
                while not self._ending.wait(self._poll_seconds):
                    try:
                        work()
                    except Unavailable as error:
                        log.warning("%s: %s", name, error)
                    except Exception:
                        log.exception("%s", name)

        return threading.Thread(target=run, name=name)
