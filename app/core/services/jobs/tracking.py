"""Which trackers a run reports to."""

from collections.abc import Sequence
from importlib.util import find_spec

from app.core.entities.training_config import TrainingConfig
from app.core.errors import Fault, Invalid
from app.core.factories import TRACKERS


def chosen_trackers(config: TrainingConfig) -> Sequence[str]:
    """``report_to`` as names. ``Invalid`` (tracker_not_installed) for those that are named and are not here."""
    if config.report_to == "none":
        return ()
    if config.report_to == "auto":
        return tuple(name for name in TRACKERS if TRACKERS.load(name).by_default and _is_here(name))
    names = list(dict.fromkeys(config.report_to))
    missing = [name for name in names if not _is_here(name)]
    if missing:
        raise Invalid(
            f"report_to names what is not installed: {', '.join(missing)}",
            code="tracker_not_installed",
            faults=[Fault("config.report_to", "tracker_not_installed", _advice(name)) for name in missing],
        )
    return names


def _is_here(name: str) -> bool:
    return is_installed(TRACKERS.load(name).package)


def is_installed(name: str) -> bool:
    """Whether ``import name`` would find a package. A mere folder of that name, which wandb leaves, is none."""
    spec = find_spec(name)
    return spec is not None and spec.origin is not None


def _advice(name: str) -> str:
    extra = TRACKERS.load(name).extra
    return f"{name} is not installed: pip install -c requirements.txt '.[{extra}]' where the worker runs"
