"""Webhooks: signed as OpenAI's client checks it, tried again with patience, and given up in the end."""

from datetime import UTC, datetime, timedelta

import pytest
from openai import InvalidWebhookSignatureError, OpenAI

from app.core.entities.identity import Principal, Role
from app.core.entities.webhooks import DELAYS, Outcome, WebhookEvent, new_delivery, new_secret, signature
from app.core.errors import Conflict, Invalid, NotFound
from app.core.interfaces.webhooks import WebhookSender
from app.core.services.operations.webhook_delivery import WebhookDeliveryService
from app.core.services.operations.webhooks import MOST_OF_A_PROJECT, WebhookService
from app.implementations.webhooks.secret_box import FernetBox

ADMIN = Principal("u1", "alice", "default", Role.ADMIN)
OTHER = Principal("u2", "bob", "other", Role.OPERATOR)
URL = "https://hooks.example.com/"
ALL = list(WebhookEvent)


class TwinSender(WebhookSender):
    def __init__(self):
        self.sent = []
        self.outcomes = {}  # by URL; else 200

    def fault(self, url):
        return None if url.startswith("https://") else "must begin with https://"

    def post(self, url, headers, body):
        self.sent.append((url, headers, body))
        return self.outcomes.get(url, Outcome(200))


class Clock:
    def __init__(self):
        self.now = datetime.now(UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def sender():
    return TwinSender()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def box(tmp_path):
    return FernetBox(None, tmp_path / "encryption_key")


@pytest.fixture
def webhooks(twins, sender, box):
    return WebhookService(twins.webhooks, sender, box, ["train", "count"])


@pytest.fixture
def delivery(twins, sender, box, clock):
    return WebhookDeliveryService(twins.webhooks, sender, box, clock)


@pytest.fixture
def tell(twins, clock):
    """An event to an endpoint, as the end of a job puts it."""

    def tell(webhook, number=1):
        event = WebhookEvent.SUCCEEDED
        made = new_delivery(webhook.id, webhook.project_id, f"evt_{number}", event, f"ftjob-{number}", clock.now)
        twins.webhooks.queue(made)

    return tell


def unwrap(secret, sent):
    _, headers, body = sent
    return OpenAI(api_key="x", webhook_secret=secret).webhooks.unwrap(body, headers)


def test_openais_client_takes_what_is_sent(webhooks, delivery, sender, tell):
    webhook, secret = webhooks.create(ADMIN, URL, ALL)
    tell(webhook)
    assert delivery.deliver_due() is True
    assert delivery.deliver_due() is False
    event = unwrap(secret, sender.sent[0])
    assert (event.type, event.data.id, event.id) == ("fine_tuning.job.succeeded", "ftjob-1", "evt_1")
    url, headers, _ = sender.sent[0]
    assert (url, headers["webhook-id"]) == (URL, "evt_1")
    (shown,) = webhooks.deliveries(ADMIN, webhook.id).deliveries
    assert (shown.state, shown.attempts, shown.status) == ("delivered", 1, 200)
    with pytest.raises(InvalidWebhookSignatureError):
        unwrap(new_secret(), sender.sent[0])


def test_the_example_of_the_specification():
    """standard-webhooks.com's own."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    assert (
        signature([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, '{"test": 2432232314}')
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_a_secret_is_kept_encrypted(webhooks, twins, box):
    webhook, secret = webhooks.create(ADMIN, URL, ALL)
    kept = twins.webhooks.get("default", webhook.id)
    assert secret not in repr(kept)
    assert box.open(kept.secret) == secret


def test_both_secrets_sign_for_a_day(webhooks, delivery, sender, tell, clock):
    webhook, old = webhooks.create(ADMIN, URL, ALL)
    _, new = webhooks.rotate_secret(ADMIN, webhook.id)
    tell(webhook)
    delivery.deliver_due()
    for secret in (old, new):
        assert unwrap(secret, sender.sent[0])
    clock.now += timedelta(hours=25)
    tell(webhook, 2)
    delivery.deliver_due()
    assert len(sender.sent[1][1]["webhook-signature"].split()) == 1


def test_it_is_tried_again_for_a_day_or_so_with_one_id_and_then_given_up(webhooks, delivery, sender, tell, clock):
    webhook, _ = webhooks.create(ADMIN, URL, ALL)
    sender.outcomes[URL] = Outcome(error="timeout")
    tell(webhook)
    for delay in DELAYS:
        assert delivery.deliver_due()
        clock.now += delay - timedelta(seconds=1)
        assert not delivery.deliver_due()
        clock.now += timedelta(seconds=1)
    assert webhooks.deliveries(ADMIN, webhook.id).deliveries[0].state == "pending"
    sender.outcomes[URL] = Outcome(500)
    assert delivery.deliver_due()
    clock.now += timedelta(days=30)
    assert not delivery.deliver_due()
    (shown,) = webhooks.deliveries(ADMIN, webhook.id).deliveries
    assert (shown.state, shown.attempts, shown.status, shown.error) == ("failed", len(DELAYS) + 1, 500, None)
    assert {headers["webhook-id"] for _, headers, _ in sender.sent} == {"evt_1"}
    assert len({body for _, _, body in sender.sent}) == 1
    assert timedelta(days=1) < sum(DELAYS, timedelta()) < timedelta(days=2)


def test_one_that_fails_keeps_nobody_else(webhooks, delivery, sender, tell, clock):
    bad, _ = webhooks.create(ADMIN, URL, ALL)
    good, _ = webhooks.create(OTHER, "https://good.example/", ALL)
    sender.outcomes[URL] = Outcome(error="timeout")
    for number in range(3):
        tell(bad, number)
    tell(good)
    delivery.deliver_due()
    assert webhooks.deliveries(OTHER, good.id).deliveries[0].state == "delivered"


def test_an_endpoint_that_is_gone_is_switched_off(webhooks, delivery, sender, tell):
    webhook, _ = webhooks.create(ADMIN, URL, ALL)
    sender.outcomes[URL] = Outcome(410)
    tell(webhook)
    delivery.deliver_due()
    assert webhooks.webhook(ADMIN, webhook.id).enabled is False


def test_what_waits_for_one_that_is_off_is_sent_when_it_is_on(webhooks, delivery, sender, tell):
    webhook, _ = webhooks.create(ADMIN, URL, ALL)
    tell(webhook)
    webhooks.change(ADMIN, webhook.id, enabled=False)
    assert not delivery.deliver_due()
    webhooks.change(ADMIN, webhook.id, enabled=True)
    assert delivery.deliver_due()


def test_a_secret_that_cannot_be_read_is_no_reason_to_stop(webhooks, twins, sender, tell, clock):
    webhook, _ = webhooks.create(ADMIN, URL, ALL)
    tell(webhook)
    WebhookDeliveryService(twins.webhooks, sender, FernetBox("k" * 32, None), clock).deliver_due()
    assert sender.sent == []
    assert webhooks.deliveries(ADMIN, webhook.id).deliveries[0].error == "secret_unreadable"


def test_what_is_refused(webhooks):
    with pytest.raises(Invalid):
        webhooks.create(ADMIN, "http://hooks.example.com/", ALL)
    webhook, _ = webhooks.create(ADMIN, URL, [WebhookEvent.FAILED, WebhookEvent.FAILED])
    assert webhook.events == (WebhookEvent.FAILED,)
    with pytest.raises(Invalid):
        webhooks.change(ADMIN, webhook.id, url="ftp://x")
    with pytest.raises(Invalid):
        webhooks.change(ADMIN, webhook.id, events=["dance.job.failed"])
    for _ in range(MOST_OF_A_PROJECT - 1):
        webhooks.create(ADMIN, URL, ALL)
    with pytest.raises(Conflict):
        webhooks.create(ADMIN, URL, ALL)
    assert webhooks.create(OTHER, URL, ALL)
    for ask in (
        lambda: webhooks.webhook(OTHER, webhook.id),
        lambda: webhooks.change(OTHER, webhook.id, enabled=False),
        lambda: webhooks.rotate_secret(OTHER, webhook.id),
        lambda: webhooks.ping(OTHER, webhook.id),
        lambda: webhooks.deliveries(OTHER, webhook.id),
        lambda: webhooks.remove(OTHER, webhook.id),
    ):
        with pytest.raises(NotFound):
            ask()
