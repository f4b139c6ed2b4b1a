import os
from pathlib import Path

import pytest

from app.utils.project import ROOT, python_path, shown


def test_the_project_is_where_it_is_started() -> None:
    assert (ROOT / "run.py").is_file()


def test_a_child_finds_the_package_and_what_its_parent_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert python_path() == str(ROOT)
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert python_path().split(os.pathsep) == [str(ROOT), "/elsewhere"]


def test_a_path_is_shown_from_the_project() -> None:
    assert shown(ROOT / "data" / "rows.json") == "data/rows.json"
    assert shown(Path("/elsewhere/rows.json")) == "/elsewhere/rows.json"
