"""The stream of a job's events over the twins: what is refused before it begins, and what it says."""

import json

import pytest

from app.core.entities.identity import Role
from app.core.entities.jobs import JobEvent, JobState
from app.core.errors import Unavailable
from app.gateway.streams import Streams

BODY = {"dataset_path": "data/raw/sound.json"}


@pytest.fixture
def job(caller, twins):
    """An id, with three events."""
    job_id = caller("POST", "/api/v1/train", json=BODY).json["task_id"]
    claim = twins.jobs.claim("worker", 30)
    made = claim.job.created_at
    events = [JobEvent(seq, "metrics", "info", f"step {seq}", made, {"step": seq}) for seq in (1, 2, 3)]
    twins.jobs.ingest(job_id, claim.fence, events, None)
    twins.jobs.move(job_id, claim.fence, JobState.FAILED)
    return job_id


def frames(answer):
    return [dict(line.split(": ", 1) for line in text.splitlines()) for text in answer.text.strip().split("\n\n")]


def test_all_events_and_the_end(caller, job):
    answer = caller("GET", f"/api/v1/train/{job}/events/stream")
    assert answer.content_type == "text/event-stream; charset=utf-8"
    retry, *events, end = frames(answer)
    assert int(retry["retry"]) > 0
    assert [(event["id"], event["event"]) for event in events] == [(str(seq), "metrics") for seq in (1, 2, 3)]
    listed = caller("GET", f"/api/v1/train/{job}/events").json["data"]
    assert [json.loads(event["data"]) for event in events] == listed
    assert "id" not in end
    assert (end["event"], json.loads(end["data"])["status"]) == ("end", "failed")


@pytest.mark.parametrize(
    ("query", "headers", "expected"),
    [
        ("?after=1", {}, ["2", "3"]),
        ("", {"Last-Event-ID": "2"}, ["3"]),
        ("?after=1", {"Last-Event-ID": "2"}, ["3"]),
        ("", {"Last-Event-ID": "9"}, []),
    ],
)
def test_it_goes_on_after_the_last_event_seen(caller, job, query, headers, expected):
    answer = caller("GET", f"/api/v1/train/{job}/events/stream{query}", headers=headers)
    assert [frame["id"] for frame in frames(answer) if "id" in frame] == expected


def test_more_events_than_a_page(caller, job, monkeypatch):
    monkeypatch.setattr("app.api.jobs.event_stream.PAGE", 1)
    answer = caller("GET", f"/api/v1/train/{job}/events/stream")
    assert [frame.get("id") for frame in frames(answer)[1:]] == ["1", "2", "3", None]


@pytest.mark.parametrize("last", ["x", "-1", "", "99999999999", "1.5"])
def test_a_last_event_id_that_is_no_number(caller, job, last):
    answer = caller("GET", f"/api/v1/train/{job}/events/stream", headers={"Last-Event-ID": last})
    assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
    assert [fault["where"] for fault in answer.json["errors"]] == ["Last-Event-ID"]


def test_refusals_are_problems_before_the_stream_begins(client, caller, bearer, job):
    path = f"/api/v1/train/{job}/events/stream"
    assert client.get(path).status_code == 401
    strange = client.get(path, headers=bearer(Role.ADMIN, "other"))
    assert (strange.status_code, strange.json["code"]) == (404, "job_not_found")
    assert caller("GET", "/api/v1/train/ftjob-x/events/stream").status_code == 404


def test_no_more_streams_than_may_and_room_again_when_one_ends(app, caller, job, monkeypatch):
    monkeypatch.setitem(app.extensions, "streams", Streams(most=1))
    path = f"/api/v1/train/{job}/events/stream"
    first = caller("GET", path, buffered=False)
    refused = caller("GET", path)
    assert (refused.status_code, refused.json["code"]) == (503, "too_many_streams")
    assert int(refused.headers["Retry-After"]) > 0
    first.close()
    assert caller("GET", path, buffered=True).status_code == 200
    assert caller("HEAD", path, buffered=True).status_code == 200
    assert caller("GET", path, buffered=True).status_code == 200


def test_an_ending_process_ends_a_stream_that_has_no_end(app, twins, caller, monkeypatch):
    streams = Streams(most=1)
    monkeypatch.setitem(app.extensions, "streams", streams)
    job_id = caller("POST", "/api/v1/train", json=BODY).json["task_id"]
    streams.end()
    answer = caller("GET", f"/api/v1/train/{job_id}/events/stream")
    assert [list(frame) for frame in frames(answer)] == [["retry"]]


def test_silence_is_broken_by_a_comment(app, caller, monkeypatch):
    monkeypatch.setattr("app.gateway.streams.HEARTBEAT_SECONDS", 0.0)
    with app.test_request_context():
        looks = iter([None, None])
        answer = Streams(most=1).follow(lambda go_on: looks)
        assert list(answer.response)[1:] == [b": still here\n\n"] * 2
        answer.close()


def test_a_database_that_goes_away_ends_the_stream(app, caller, job, twins, monkeypatch):
    def away(*_, **__):
        raise Unavailable("away")

    monkeypatch.setattr(type(twins.jobs), "events", away)
    answer = caller("GET", f"/api/v1/train/{job}/events/stream")
    assert (answer.status_code, len(frames(answer))) == (200, 1)
