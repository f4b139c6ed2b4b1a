"""What every repository of webhooks does; and, over SQL, what the end of a job leaves in the outbox."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.core.entities.jobs import JobError, JobState
from app.core.entities.webhooks import DELAYS, KEPT_FOR, Outcome, Webhook, WebhookEvent, new_delivery
from app.core.errors import Conflict, Invalid

NOW = datetime(2026, 3, 3, tzinfo=UTC)
ALL = tuple(WebhookEvent)
HOOK = Webhook("wh-1", "default", "https://a.example/", ALL, True, "sealed", "u1", NOW)
OTHERS = replace(HOOK, id="wh-2", project_id="other")


@pytest.fixture
def webhooks(repositories):
    repositories.webhooks.add(HOOK, 2)
    repositories.webhooks.add(OTHERS, 1)
    return repositories.webhooks


def queue(webhooks, number, webhook=HOOK, at=NOW):
    event = WebhookEvent.FAILED
    made = new_delivery(webhook.id, webhook.project_id, f"evt_{number}", event, "ftjob-1", at)
    assert webhooks.queue(made)
    return made


def test_endpoints_of_a_project(webhooks):
    later = replace(HOOK, id="wh-3", created_at=NOW + timedelta(seconds=1), events=(WebhookEvent.FAILED,))
    webhooks.add(later, 2)
    assert webhooks.list("default") == [HOOK, later]
    with pytest.raises(Conflict):
        webhooks.add(replace(HOOK, id="wh-4"), 2)
    changes = {
        "enabled": False,
        "old_secret": "sealed",
        "old_secret_until": NOW,
        "events": (WebhookEvent.CANCELLED,),
    }
    assert webhooks.change("default", "wh-1", changes) == replace(HOOK, **changes)
    assert webhooks.get("default", "wh-1") == replace(HOOK, **changes)
    assert webhooks.change("other", "wh-1", changes) is None
    assert webhooks.get("other", "wh-1") is None
    assert webhooks.remove("other", "wh-1") is False
    queue(webhooks, 1)
    assert webhooks.remove("default", "wh-1") is True
    assert webhooks.remove("default", "wh-1") is False
    assert webhooks.deliveries("default", "wh-1", 10) == []
    assert not webhooks.queue(new_delivery("wh-1", "default", "evt_9", "x", "y", NOW))


def test_what_is_due_is_claimed_once_and_is_due_again(webhooks):
    first = queue(webhooks, 1)
    queue(webhooks, 2, at=NOW + timedelta(seconds=1))
    queue(webhooks, 3, OTHERS, NOW + timedelta(seconds=2))
    assert webhooks.claim_due(NOW - timedelta(seconds=1), 8) == []
    now = NOW + timedelta(seconds=5)
    claimed = webhooks.claim_due(now, 8)
    assert [(hook.id, one.event_id, one.attempts) for hook, one in claimed] == [
        ("wh-1", "evt_1", 1),
        ("wh-2", "evt_3", 1),
    ]
    taken = replace(first, attempts=1, last_attempt_at=now, next_attempt_at=now + DELAYS[0])
    assert claimed[0][1] == taken
    webhooks.finish(taken, Outcome(204), now)
    webhooks.finish(claimed[1][1], Outcome(error="timeout"), now)
    assert [one.event_id for _, one in webhooks.claim_due(now, 8)] == ["evt_2"]
    newest, delivered = webhooks.deliveries("default", "wh-1", 10)
    assert delivered == replace(taken, status=204, delivered_at=now, next_attempt_at=None)
    (others,) = webhooks.deliveries("other", "wh-2", 10)
    assert (others.state, others.error) == ("pending", "timeout")
    again = dict.fromkeys(one.event_id for _, one in webhooks.claim_due(now + DELAYS[0], 8))
    assert list(again) == ["evt_2", "evt_3"]
    assert newest.event_id == "evt_2"


def test_a_late_word_about_an_attempt_changes_nothing_of_the_next(webhooks):
    queue(webhooks, 1)
    [(_, first)] = webhooks.claim_due(NOW, 8)
    [(_, second)] = webhooks.claim_due(NOW + DELAYS[0], 8)
    webhooks.finish(first, Outcome(200), NOW)
    assert webhooks.deliveries("default", "wh-1", 1) == [second]


def test_what_is_over_goes_after_a_while(webhooks):
    for number, at in enumerate((NOW, NOW, NOW + KEPT_FOR)):
        queue(webhooks, number, at=at)
    queue(webhooks, 9, OTHERS)
    [(_, first), (_, others)] = webhooks.claim_due(NOW, 8)
    for one in (first, others):
        webhooks.finish(one, Outcome(200), NOW)
    later = NOW + KEPT_FOR + timedelta(seconds=1)
    [(_, waited)] = webhooks.claim_due(later, 8)
    webhooks.finish(waited, Outcome(500), later)
    left = [one.event_id for one in webhooks.deliveries("default", "wh-1", 9)]
    assert left == ["evt_2", waited.event_id]  # however old, one that is not over stays
    assert [one.event_id for one in webhooks.deliveries("other", "wh-2", 9)] == ["evt_9"]


def test_deliveries_come_in_pages(webhooks):
    queue(webhooks, 3, at=NOW + timedelta(seconds=1))
    for number in (1, 4, 2):  # of one moment, on two pages
        queue(webhooks, number)
    queue(webhooks, 9, OTHERS)
    pages, after = [], None
    for _ in range(3):
        page = [one.event_id for one in webhooks.deliveries("default", "wh-1", 2, after)]
        after = page[-1] if page else after
        pages.append(page)
    assert pages == [["evt_3", "evt_4"], ["evt_2", "evt_1"], []]
    assert [one.event_id for one in webhooks.deliveries("default", "wh-1", 9, "evt_2")] == ["evt_1"]
    for unknown in ("evt_9", "evt_none"):  # one of another endpoint, and none
        with pytest.raises(Invalid) as caught:
            webhooks.deliveries("default", "wh-1", 2, unknown)
        assert [fault.where for fault in caught.value.faults] == ["after"]


def test_one_that_is_off_waits(webhooks):
    queue(webhooks, 1)
    webhooks.change("default", "wh-1", {"enabled": False})
    assert webhooks.claim_due(NOW, 8) == []
    webhooks.change("default", "wh-1", {"enabled": True})
    assert len(webhooks.claim_due(NOW, 8)) == 1


def test_many_workers_send_each_once(webhooks):
    for number in range(20):
        queue(webhooks, number)
    claimed = []
    with ThreadPoolExecutor(4) as pool:
        while round_of := [
            one for found in pool.map(lambda _: webhooks.claim_due(NOW, 8), range(4)) for one in found
        ]:
            claimed += [one.event_id for _, one in round_of]
    assert sorted(claimed) == sorted(f"evt_{number}" for number in range(20))


# --- The outbox ---


@pytest.fixture
def outbox(repositories, make_job):
    """Endpoints of everything, of failures, one that is off, and one of another project."""
    for name, changes in {
        "wh-all": {},
        "wh-failed": {"events": (WebhookEvent.FAILED,)},
        "wh-off": {"enabled": False},
        "wh-other": {"project_id": "other"},
    }.items():
        repositories.webhooks.add(replace(HOOK, id=name, **changes), 10)

    def told():
        return {
            name: [
                (one.type, json.loads(one.body)["data"]["id"])
                for one in repositories.webhooks.deliveries(project, name, 9)
            ]
            for name, project in (
                ("wh-all", "default"),
                ("wh-failed", "default"),
                ("wh-off", "default"),
                ("wh-other", "other"),
            )
        }

    return told


def test_the_end_of_a_job_is_told_to_who_asked(repositories, make_job, outbox):
    job = make_job(state=JobState.QUEUED)
    repositories.jobs.add([job])
    fence = repositories.jobs.claim("worker", 30).fence
    assert not any(outbox().values())
    repositories.jobs.move(job.id, fence, JobState.FAILED, JobError("nan_loss", "NaN"))
    failed = [("fine_tuning.job.failed", job.id)]
    assert outbox() == {"wh-all": failed, "wh-failed": failed, "wh-off": [], "wh-other": []}
    one, two = (repositories.webhooks.deliveries("default", name, 1)[0] for name in ("wh-all", "wh-failed"))
    assert (one.event_id, one.body) == (two.event_id, two.body)
    body = json.loads(one.body)
    assert body.keys() == {"id", "object", "created_at", "type", "data"}
    assert (body["object"], body["id"]) == ("event", one.event_id)


def test_a_job_that_is_cancelled_while_it_waits(repositories, make_job, outbox):
    job = make_job(state=JobState.QUEUED)
    repositories.jobs.add([job])
    for _ in range(2):
        repositories.jobs.request_cancel("default", job.id)
    assert outbox()["wh-all"] == [("fine_tuning.job.cancelled", job.id)]


def test_a_job_of_a_lost_worker_is_told_by_whoever_finds_it(repositories, make_job, outbox):
    job = make_job(state=JobState.QUEUED)
    repositories.jobs.add([job])
    repositories.jobs.claim("worker", 30)
    (lease,) = repositories.jobs.leases()
    repositories.jobs.release_lost(lease, 1)
    assert repositories.jobs.get("default", job.id).state is JobState.FAILED
    assert outbox()["wh-failed"] == [("fine_tuning.job.failed", job.id)]


def test_an_end_without_its_event_is_no_end(repositories, make_job, outbox, monkeypatch):
    job = make_job(state=JobState.QUEUED)
    repositories.jobs.add([job])
    fence = repositories.jobs.claim("worker", 30).fence
    monkeypatch.setattr("app.repositories.outbox.delivery_row", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        repositories.jobs.move(job.id, fence, JobState.FAILED, JobError("nan_loss", "NaN"))
    assert repositories.jobs.get("default", job.id).state is JobState.RUNNING
    assert not any(outbox().values())
