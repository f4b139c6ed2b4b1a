"""Where an engine is found: configured, run.py's own, or wished for."""

import threading
import time
from pathlib import Path

import pytest

from app.core.entities.engines import EngineName
from app.core.errors import Unavailable
from app.implementations.serving.addresses import OwnEngines, Refusal, wishes, write_own_engines
from app.implementations.serving.places import EnginePlaces, Place

TINY, WHOLE = EngineName("tiny"), EngineName("tiny", "v1")
SOON = 30.0


@pytest.fixture
def places(tmp_path: Path) -> EnginePlaces:
    return EnginePlaces({"given": "http://elsewhere/"}, "theirs", tmp_path)


def supervise(folder: Path, **own: object) -> None:
    write_own_engines(folder, OwnEngines(secret="ours", starts_others=True, **own))  # type: ignore[arg-type]


def answer_the_wish(folder: Path, **own: object) -> threading.Thread:
    """As run.py does, once somebody wishes."""

    def answer() -> None:
        until = time.monotonic() + SOON
        while not (heard := list(wishes(folder))) and time.monotonic() < until:
            time.sleep(0.01)
        refused = {str(engine): Refusal(time.monotonic(), "too large") for _, engine in heard}
        supervise(folder, **(own or {"refused": refused}))
        for file, _ in heard:
            file.unlink()

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def find(places: EnginePlaces, engine: EngineName, seconds: float = SOON, but: Place | None = None) -> Place:
    return places.find(engine, time.monotonic() + seconds, but)


def test_each_has_the_secret_of_its_owner(places: EnginePlaces, tmp_path: Path) -> None:
    supervise(tmp_path, always="tiny", engines={"tiny": "http://here"}, versions={"v1": "http://there"})
    assert find(places, EngineName("given")) == Place("http://elsewhere", "theirs")
    assert find(places, TINY) == Place("http://here", "ours")
    assert find(places, WHOLE) == Place("http://there", "ours", on_demand=True)
    assert list(places.bases()) == ["tiny", "given"]
    assert places.bases()["given"].headers == {"authorization": "Bearer theirs"}


def test_without_run_py_a_missing_engine_says_how_to_start_it(places: EnginePlaces, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"--base_model tiny --version v1.*ENGINES") as caught:
        find(places, WHOLE)
    assert caught.value.code == "base_not_resident"
    assert list(wishes(tmp_path)) == []


def test_a_wish_is_waited_for(places: EnginePlaces, tmp_path: Path) -> None:
    supervise(tmp_path)
    answering = answer_the_wish(tmp_path, versions={"v1": "http://new"})
    assert find(places, WHOLE).url == "http://new"
    answering.join()


def test_one_that_has_gone_is_wished_for_again(places: EnginePlaces, tmp_path: Path) -> None:
    supervise(tmp_path, versions={"v1": "http://old"})
    gone = find(places, WHOLE)
    with pytest.raises(Unavailable, match="not started yet"):
        find(places, WHOLE, seconds=0, but=gone)  # run.py has not seen yet that it has gone
    assert list(wishes(tmp_path)) == []
    supervise(tmp_path)
    answering = answer_the_wish(tmp_path, versions={"v1": "http://new"})
    assert find(places, WHOLE, but=gone).url == "http://new"
    answering.join()


def test_a_refusal_is_told_and_an_older_one_is_not(places: EnginePlaces, tmp_path: Path) -> None:
    supervise(tmp_path, refused={"v1": Refusal(time.monotonic(), "too large before")})
    answering = answer_the_wish(tmp_path)
    with pytest.raises(Unavailable, match=r"too large$") as caught:
        find(places, WHOLE)
    answering.join()
    assert caught.value.code == "base_not_resident"


def test_nobody_waits_beyond_the_deadline(places: EnginePlaces, tmp_path: Path) -> None:
    supervise(tmp_path, starting=["v1"])
    with pytest.raises(Unavailable) as caught:
        find(places, WHOLE, seconds=0)
    assert caught.value.code == "engine_timeout"
    assert list(wishes(tmp_path)) == []  # it is heard already
