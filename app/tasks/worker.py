"""The worker: a thread for each slot carries jobs, a doorbell wakes them; two more watch leases and send webhooks.

Light slots carry jobs of light kinds alone, which would else wait behind a week of training.

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
from app.core.interfaces.services.operations import WebhookDelivery
from app.extensions import current_services

LAST_SECONDS = 1.0  # for the last words about trainers that had drain_seconds to end

log = logging.getLogger(__name__)


def make_celery(
    app: Flask,
    celery: Celery,
    *,
    slots: Sequence[str | None],
    light_slots: int,
    poll_seconds: float,
    drain_seconds: float,
) -> Celery:
    """Give the Celery app its task, and a worker that runs it the slots: the GPUs of each, None for any."""
    worker = Worker(app, slots, light_slots, poll_seconds, drain_seconds)

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

    def __init__(
        self,
        app: Flask,
        slots: Sequence[str | None],
        light_slots: int,
        poll_seconds: float,
        drain_seconds: float,
    ) -> None:
        self._app = app
        self._poll_seconds = poll_seconds
        self._drain_seconds = drain_seconds
        self._ending = threading.Event()
        self._doorbells: list[threading.Event] = []
        slot_threads = [
            *(self._new_slot(str(number), gpus, is_light=False) for number, gpus in enumerate(slots)),
            *(self._new_slot(f"light {number}", None, is_light=True) for number in range(light_slots)),
        ]
        with app.app_context():
            found = current_services()
        self._execution = found.execution
        watch = self._each_poll("leases", self._execution.watch_leases)
        send = self._each_poll("webhooks", lambda: self._send(found.webhook_delivery))
        self._threads = [*slot_threads, watch, send]

    def ring(self) -> None:
        for doorbell in self._doorbells:
            doorbell.set()

    def start(self, **_: Any) -> None:
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def drain(self, **_: Any) -> None:
        """In a signal handler: it only sets marks."""
        self._execution.drain()
        self._ending.set()
        self.ring()

    def join(self, **_: Any) -> None:
        self.drain()
        until = time.monotonic() + self._drain_seconds + LAST_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _new_slot(self, number: str, gpus: str | None, *, is_light: bool) -> threading.Thread:
        """A slot has a doorbell of its own: one that waits takes no ring from another that is at work."""
        self._doorbells.append(doorbell := threading.Event())
        arguments = (number, gpus, is_light, doorbell)
        return threading.Thread(target=self._slot, args=arguments, name=f"slot {number}")

    def _slot(self, number: str, gpus: str | None, is_light: bool, doorbell: threading.Event) -> None:
        owner = f"{socket.gethostname()}:{os.getpid()}:{number}"
        with self._app.app_context():
            while not self._ending.is_set():
                try:
                    while self._execution.run_next(owner, gpus=gpus, is_light=is_light):
                        pass
                    if not is_light:
                        self._execution.prepare(gpus)
                except Unavailable as error:
                    log.warning("%s: %s", owner, error)
                except Exception:
                    log.exception("%s", owner)
                doorbell.wait(self._poll_seconds)
                doorbell.clear()
            self._execution.dismiss()

    def _send(self, delivery: WebhookDelivery) -> None:
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
