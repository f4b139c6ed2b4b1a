"""Where the project lies, for what starts another process of it."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def python_path() -> str:
    """Return the PYTHONPATH with which ``python -m app…`` finds the package from any folder."""
    before = os.environ.get("PYTHONPATH")
    return f"{ROOT}{os.pathsep}{before}" if before else str(ROOT)


def shown(path: Path) -> str:
    """Return ``path`` as a user in the project's folder would write it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
