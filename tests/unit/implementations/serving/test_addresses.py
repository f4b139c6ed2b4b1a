"""The files by which run.py and those who ask engines hear of each other."""

from pathlib import Path

from app.core.entities.engines import EngineName
from app.implementations.serving.addresses import (
    OwnEngines,
    Refusal,
    leave_wish,
    read_own_engines,
    wishes,
    write_own_engines,
)


def test_what_was_written_last_is_read(tmp_path: Path) -> None:
    assert read_own_engines(tmp_path) == OwnEngines()
    write_own_engines(tmp_path, OwnEngines(engines={"tiny": "http://127.0.0.1:1"}, secret="secret"))
    own = OwnEngines(
        always="tiny",
        engines={"tiny": "http://127.0.0.1:2"},
        versions={"v1": "http://127.0.0.1:3"},
        starting=["big"],
        refused={"huge": Refusal(1.5, "too large")},
        secret="secret",
        starts_others=True,
    )
    write_own_engines(tmp_path, own)
    assert read_own_engines(tmp_path) == own
    assert (tmp_path / "engines.json").stat().st_mode & 0o777 == 0o600  # it has the secret


def test_a_version_is_not_taken_for_its_base() -> None:
    own = OwnEngines(engines={"tiny": "base"}, versions={"v1": "version"})
    assert [own.url(EngineName("tiny", version)) for version in (None, "v1", "v2")] == ["base", "version", None]


def test_wishes_are_of_each_engine_once(tmp_path: Path) -> None:
    assert list(wishes(tmp_path)) == []
    wanted = [EngineName("tiny"), EngineName("tiny", "v1")]
    for engine in (*wanted, *wanted):
        leave_wish(tmp_path, engine)
    assert [engine for _, engine in wishes(tmp_path)] == wanted
