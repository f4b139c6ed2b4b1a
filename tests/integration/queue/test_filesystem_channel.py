"""Our channel of Celery's filesystem broker, among processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.implementations.queue.broker import celery_app
from app.implementations.queue.celery_queue import CeleryQueue

MESSAGES, WRITERS, READERS = 500, 2, 3

WRITE = """
import sys
from pathlib import Path
from app.implementations.queue.celery_queue import CeleryQueue
queue = CeleryQueue(None, Path(sys.argv[1]), ["default"])
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    queue.ring(f"job-{number}-" + "x" * 5_000, "default")
"""

READ = """
import sys, time
from pathlib import Path
from app.implementations.queue.broker import celery_app, queue_name
with celery_app(None, Path(sys.argv[1]), ["default"]).connection_for_read() as connection:
    while True:
        done = Path(sys.argv[2]).exists()
        message = connection.default_channel.basic_get(queue_name("default"), no_ack=True)
        if message is not None:
            print(message.decode()[0][0].rstrip("x"))
        elif done:
            break
        else:
            time.sleep(0.01)
"""


def test_no_message_is_lost_or_half_read(tmp_path: Path) -> None:
    done = tmp_path / "done"

    def start(script: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, str(tmp_path), *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    share = MESSAGES // WRITERS
    readers = [start(READ, done) for _ in range(READERS)]
    writers = [start(WRITE, n * share, (n + 1) * share) for n in range(WRITERS)]
    try:
        for writer in writers:
            assert writer.communicate(timeout=60)[1] == ""
        done.touch()
        read: list[str] = []
        for reader in readers:
            output, errors = reader.communicate(timeout=60)
            assert errors == ""
            read += output.split()
    finally:
        for process in (*readers, *writers):
            process.kill()
            process.communicate()
    assert sorted(read) == sorted(f"job-{number}-" for number in range(MESSAGES))
    assert list((tmp_path / "broker").iterdir()) == []


def test_messages_are_for_this_user_alone(tmp_path: Path) -> None:
    celery_app(None, tmp_path, ["default"])
    assert (tmp_path / "broker").stat().st_mode & 0o777 == 0o700


def test_a_broker_that_answers(tmp_path: Path, redis_url: str) -> None:
    assert CeleryQueue(None, tmp_path, ["default"]).check() is None
    assert CeleryQueue(redis_url, tmp_path, ["default"]).check() is None


def test_a_broker_that_does_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    queue = CeleryQueue("redis://:secret@127.0.0.1:1/0", tmp_path, ["default"])
    problem = queue.check()
    assert problem is not None
    assert "secret" not in problem
    queue.ring("job-1", "default")  # never raises
    assert "job-1" in caplog.text
    assert "secret" not in caplog.text
