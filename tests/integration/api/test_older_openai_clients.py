"""The last official clients of the older lines: what the newest is tested with, they pass too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("version", ["1.109.1", "2.54.0"])
def test_an_older_client(tmp_path: Path, version: str) -> None:
    """Alone before the installed one: what it imports is here for the newest already."""
    install = ("pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), f"openai=={version}")
    subprocess.run([sys.executable, "-m", *install], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )

    assert run("-c", "import openai; print(openai.__version__)").stdout.strip() == version
    tested = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/api/openai")
    assert tested.returncode == 0, tested.stdout[-5000:]
    # OpenAI's guide, against a whole service.
    guided = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/e2e/test_whole_service.py", "-k", "sqlite")
    assert guided.returncode == 0, guided.stdout[-5000:]
