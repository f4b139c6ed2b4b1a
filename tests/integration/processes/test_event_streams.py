"""Events over a real gunicorn while a real worker trains."""

import http.client
import json
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from app.core.entities.jobs import JobState
from app.processes.supervisor import _web
from tests.running_service import PASSWORD, ROOT, Developer, MakeService, Service, wait_until

STEPS = 30


@dataclass
class Web:
    server: subprocess.Popen[bytes]
    address: tuple[str, int]
    token: str

    @contextmanager
    def stream(self, job_id: str, last: int | None = None) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        headers = {"Authorization": f"Bearer {self.token}"}
        if last is not None:
            headers["Last-Event-ID"] = str(last)
        try:
            connection.request("GET", f"/api/v1/train/{job_id}/events/stream", headers=headers)
            yield connection.getresponse()
        finally:
            connection.close()

    def curve(self, job_id: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        headers = {"Authorization": f"Bearer {self.token}"}
        connection.request("GET", f"/api/v1/train/{job_id}/metrics?names=loss", headers=headers)
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        connection.close()
        return answer


@contextmanager
def gunicorn(service: Service, listener: socket.socket) -> Iterator[Web]:
    """As run.py starts it."""
    log = service.settings.instance_dir / "test.log"
    with log.open("ab") as output:
        server = subprocess.Popen(
            _web(service.settings, listener),
            cwd=ROOT,
            env=service.environment,
            pass_fds=[listener.fileno()],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    service.processes.append(server)
    address = listener.getsockname()
    connection = http.client.HTTPConnection(*address, timeout=60)
    body = json.dumps({"username": "admin", "password": PASSWORD})
    connection.request("POST", "/api/v1/auth/token", body, {"Content-Type": "application/json"})
    token = json.loads(connection.getresponse().read())["access_token"]
    connection.close()
    yield Web(server, address, token)
    server.terminate()
    server.wait()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


def frames(answer: http.client.HTTPResponse) -> Iterator[dict[str, str]]:
    """Until the server ends the stream; comments and the retry time are passed over."""
    lines: list[str] = []
    while raw := answer.readline():
        text = raw.decode().rstrip("\n")
        if text:
            lines.append(text)
            continue
        fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
        lines = []
        if "event" in fields:
            yield fields


def follow_with_breaks(web: Web, job_id: str, dice: random.Random) -> tuple[list[dict[str, str]], int]:
    """All frames up to ``end``, from as many streams as it took; each is left after a few, read or not."""
    seen: list[dict[str, str]] = []
    streams = 0
    while not seen or seen[-1]["event"] != "end":
        streams += 1
        last = int(seen[-1]["id"]) if seen else None
        with web.stream(job_id, last) as answer:
            assert answer.status == 200
            patience = dice.randint(0, 4)
            for frame in frames(answer):
                if patience == 0:
                    break  # it came, and was not heard
                patience -= 1
                seen.append(frame)
                if frame["event"] == "end":
                    assert answer.read() == b""
                    break
    return seen, streams


def test_every_event_once_and_in_order_however_often_one_reconnects(
    make_service: MakeService, listener: socket.socket
) -> None:
    service = make_service(web_threads=32)
    service.worker()
    job_id = service.submit("double-slow", num_epochs=STEPS)
    with gunicorn(service, listener) as web:
        seen, streams = follow_with_breaks(web, job_id, random.Random(7))
        curve = web.curve(job_id)
    *events, end = seen
    kept = service.services.job_records.events(Developer, job_id, limit=1000)
    assert [int(frame["id"]) for frame in events] == [event.seq for event in kept]
    assert [json.loads(frame["data"])["message"] for frame in events] == [event.message for event in kept]
    assert [int(frame["id"]) for frame in events] == list(
        range(1, STEPS + 3)
    )  # the ledger, the first word, the steps
    assert json.loads(end["data"])["status"] == "succeeded"
    assert streams > STEPS / 4
    assert curve["steps"] == list(range(1, STEPS + 1))
    assert curve["series"]["loss"]["mean"] == [event.data["loss"] for event in kept if "loss" in event.data]


def test_a_web_process_that_is_told_to_stop_ends_its_streams(
    make_service: MakeService, listener: socket.socket
) -> None:
    service = make_service()
    job_id = service.submit("double-slow")
    with gunicorn(service, listener) as web, web.stream(job_id) as answer:
        assert answer.readline() == b"retry: 1000\n"
        web.server.send_signal(signal.SIGTERM)
        assert list(frames(answer)) == []  # and so to its end, not to an error
        assert web.server.wait(30) == 0
    assert "Worker (pid" not in service.log()  # gunicorn says so of one that it had to kill


def test_streams_leave_room_for_everything_else(make_service: MakeService, listener: socket.socket) -> None:
    service = make_service(web_threads=4)
    job_id = service.submit("double-slow")
    with gunicorn(service, listener) as web:
        with web.stream(job_id) as first, web.stream(job_id) as second:
            assert (first.status, second.status) == (200, 200)
            with web.stream(job_id) as third:
                assert (third.status, json.loads(third.read())["code"]) == (503, "too_many_streams")
                assert int(third.headers["Retry-After"]) > 0

        def is_free() -> bool:
            with web.stream(job_id) as again:
                return again.status == 200

        service.services.jobs.cancel(Developer, job_id)  # the two streams have an event to send, and no reader
        assert service.job(job_id).state is JobState.CANCELLED
        wait_until(is_free, service.log)
