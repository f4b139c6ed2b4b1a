"""A trainer that ends itself by SIGKILL at an exact place: no timer hits one micro-step of a tiny model."""

from pathlib import Path

import pytest

# Python imports it at its start. The call of that number, of a function that the loop uses, is the process' last.
_SITECUSTOMIZE = """
import os, signal, sys

def arm(module, name, last):
    function, calls = getattr(module, name), []

    def counted(*arguments):
        calls.append(1)
        if len(calls) == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)

    setattr(module, name, counted)

if "app.processes.trainer" in sys.orig_argv:
    from app.implementations.training import checkpoints, loop

    name, last = os.environ["KILL_AT"].split(":")
    arm(loop if name == "pack" else checkpoints, name, int(last))
"""


def arm_trainers(folder: Path, place: str, patch: pytest.MonkeyPatch) -> None:
    """Until ``patch`` is undone, each trainer started dies at ``place``.

    ``pack:7`` is the seventh micro-batch, those of evaluations counted; ``seal:2`` the second checkpoint, when all
    of it is written but its manifest. ``folder`` gets a file.
    """
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    patch.setenv("PYTHONPATH", str(folder))
    patch.setenv("KILL_AT", place)
