"""The main job at its real size: the starter model learns the sample data. Ten minutes and more."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGLISH = re.compile(r"^ +en +(\d+)/(\d+) \(\d+%\) +(\d+)/(\d+) ", re.MULTILINE)


@pytest.mark.slow
def test_the_demo_teaches_the_starter_model_four_facts_of_five(tmp_path: Path) -> None:
    folders = {"INSTANCE_DIR": str(tmp_path / "instance"), "RESULTS_DIR": str(tmp_path / "results")}
    done = subprocess.run(
        [sys.executable, "-m", "app.scripts.demo"],
        cwd=ROOT,
        env={**os.environ, **folders, "MODELS_DIR": str(tmp_path / "models")},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    right_before, _, right_after, asked = map(int, ENGLISH.search(done.stdout + " ").groups())
    assert asked >= 120
    assert right_after >= 0.8 * asked > right_before
