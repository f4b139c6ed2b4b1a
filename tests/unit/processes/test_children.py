import os
import sys
from collections.abc import Callable, Iterator

import pytest

from app.processes import children
from app.processes.children import Child

Start = Callable[..., Child]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(children.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def child_of() -> Iterator[Start]:
    made: list[Child] = []

    def make(script: str, explain: Callable[[int], str | None] = lambda status: None) -> Child:
        made.append(Child("child", [sys.executable, "-S", "-c", script], os.environ, explain=explain))
        return made[-1]

    yield make
    for child in made:
        if child.process is not None:
            child.process.kill()
            child.process.wait()


def end(child: Child) -> None:
    assert child.process is not None
    child.process.wait()
    child.tend()
    assert child.process is None


def test_one_that_keeps_dying_is_started_less_and_less_often(
    child_of: Start, clock: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    child = child_of("raise SystemExit(5)")
    pauses = []
    child.tend()
    for _ in range(8):
        end(child)
        died = clock[0]
        while child.process is None:
            clock[0] += 0.5
            child.tend()
        pauses.append(clock[0] - died)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert "child ended (status 5); it starts again in 0.5 s" in capfd.readouterr().err


def test_one_that_lived_is_started_again_at_once(child_of: Start, clock: list[float]) -> None:
    child = child_of("")
    for _ in range(5):
        child.tend()
        clock[0] += 31
        end(child)
        clock[0] += 0.5
        assert child.failures == 1


def test_what_will_recur_is_said_once(
    child_of: Start, clock: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    child = child_of("raise SystemExit(3)", lambda status: "pull it" if status == 3 else None)
    for _ in range(3):
        child.tend()
        end(child)
        clock[0] += 30
    assert capfd.readouterr().err.count("pull it") == 1
    assert child.failures == 0


def test_it_leads_a_session_and_inherits_nothing_to_read(
    child_of: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    child = child_of("import os, sys; print(os.getsid(0) == os.getpid(), sys.stdin.read() == '', file=sys.stderr)")
    child.tend()
    end(child)
    assert capfd.readouterr().err.splitlines()[0] == "True True"


def test_terminate_reaches_it(child_of: Start) -> None:
    child = child_of("import threading; threading.Event().wait()")
    child.terminate()
    assert child.has_ended()  # it never began
    child.tend()
    assert not child.has_ended()
    child.terminate()
    assert child.process is not None
    child.process.wait(10)
    assert child.has_ended()
