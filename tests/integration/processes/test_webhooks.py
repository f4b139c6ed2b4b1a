"""Webhooks of real workers: told of a job's end, and told again when the one who was telling is killed."""

import os
import signal
from datetime import UTC, datetime, timedelta

from openai import OpenAI

from app.core.entities.jobs import JobState
from app.core.entities.webhooks import DELAYS, WebhookEvent
from app.core.services.operations.webhook_delivery import WebhookDeliveryService
from tests.running_service import Developer, MakeService, wait_until
from tests.webhook_receiver import Receiver

ALL = list(WebhookEvent)
DELIVER = """
from app import create_app
from app.extensions import current_services
with create_app().app_context():
    current_services().webhook_delivery.deliver_due()
"""


def test_a_worker_tells_of_what_it_has_trained(make_service: MakeService) -> None:
    service = make_service(webhook_allowed_networks=["127.0.0.0/8"])
    with Receiver() as receiver:
        url = f"http://127.0.0.1:{receiver.port}/hook"
        webhook, secret = service.services.webhooks.create(Developer, url, ALL)
        service.worker()
        unwrap = OpenAI(api_key="x", webhook_secret=secret).webhooks.unwrap
        for name, end in (("double-ok", JobState.SUCCEEDED), ("double-fails", JobState.FAILED)):
            job_id = service.submit(name)
            path, headers, body = receiver.next()
            event = unwrap(body, headers)
            assert (path, event.type, event.data.id) == ("/hook", f"fine_tuning.job.{end.value}", job_id)
            assert service.job(job_id).state is end
        wait_until(
            lambda: all(
                one.delivered_at for one in service.services.webhooks.deliveries(Developer, webhook.id).deliveries
            )
        )
        assert receiver.requests.empty()


def test_who_is_killed_while_sending_loses_nothing(make_service: MakeService) -> None:
    service = make_service(webhook_allowed_networks=["127.0.0.0/8"])
    found = service.services
    with Receiver() as receiver:
        webhook, _ = found.webhooks.create(Developer, f"http://127.0.0.1:{receiver.port}/", ALL)
        job_id = service.submit("double-ok")
        found.jobs.cancel(Developer, job_id)  # nobody holds it: it has ended, and nobody runs who could tell
        held: list[int] = []

        def kill_the_sender(handler: object) -> None:
            os.kill(sender.pid, signal.SIGKILL)
            held.append(sender.wait())

        receiver.answer = kill_the_sender
        sender = service.start("-c", DELIVER)
        _, first, body = receiver.next()
        wait_until(lambda: held, service.log)
        assert held == [-signal.SIGKILL]
        (waiting,) = found.webhooks.deliveries(Developer, webhook.id).deliveries
        assert (waiting.state, waiting.attempts, waiting.status) == ("pending", 1, None)

        receiver.answer = 200
        assert not found.webhook_delivery.deliver_due()
        another = found.webhook_delivery
        later = WebhookDeliveryService(
            another._webhooks,
            another._sender,
            another._box,
            lambda: datetime.now(UTC) + DELAYS[0] + timedelta(seconds=1),
        )
        assert later.deliver_due()
        _, second, again = receiver.next()
        assert (second["webhook-id"], again) == (first["webhook-id"], body)
        assert found.webhooks.deliveries(Developer, webhook.id).deliveries[0].state == "delivered"
