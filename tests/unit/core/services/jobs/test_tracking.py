"""report_to: which trackers a run has, and that a missing one is named."""

import importlib
import tomllib
from pathlib import Path

import pytest

from app.core.entities.training_config import TrainingConfig
from app.core.errors import Invalid
from app.core.services.jobs import tracking
from app.core.services.jobs.tracking import chosen_trackers, is_installed
from app.registries import TRACKERS


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch):
    def install(*names: str) -> None:
        monkeypatch.setattr(tracking, "is_installed", lambda name: name in names)

    return install


def test_auto_is_tensorboard_where_it_is_installed(only) -> None:
    only("tensorboard", "mlflow", "wandb")
    assert chosen_trackers(TrainingConfig()) == ("tensorboard",)
    only("mlflow")
    assert chosen_trackers(TrainingConfig(report_to="auto")) == ()


def test_none_is_none(only) -> None:
    only("tensorboard")
    assert chosen_trackers(TrainingConfig(report_to="none")) == ()


def test_named_ones_are_taken_once_in_their_order(only) -> None:
    only("tensorboard", "mlflow", "wandb")
    config = TrainingConfig(report_to=["wandb", "tensorboard", "wandb"])
    assert chosen_trackers(config) == ["wandb", "tensorboard"]


def test_a_named_one_that_is_missing_is_refused_with_what_to_install(only) -> None:
    only("tensorboard")
    with pytest.raises(Invalid) as refused:
        chosen_trackers(TrainingConfig(report_to=["tensorboard", "mlflow", "wandb"]))
    assert refused.value.code == "tracker_not_installed"
    assert refused.value.message.endswith("mlflow, wandb")
    assert [fault.where for fault in refused.value.faults] == ["config.report_to"] * 2
    assert "pip install -c requirements.txt '.[tracking]'" in refused.value.faults[0].message


def test_a_folder_of_the_name_is_no_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """wandb leaves one wherever it runs."""
    (tmp_path / "wandb_elsewhere").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert not is_installed("wandb_elsewhere")
    assert not is_installed("no_such_tracker")
    assert is_installed("json")


def test_every_tracker_says_which_package_and_which_extra_it_needs() -> None:
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert sorted(TrainingConfig(report_to=TRACKERS.names()).report_to) == TRACKERS.names()
    for name in TRACKERS:
        tracker = TRACKERS.load(name)
        assert any(line.startswith(tracker.package) for line in extras[tracker.extra])
