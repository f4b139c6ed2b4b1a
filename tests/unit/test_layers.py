"""The contracts of DESIGN.md § 3 in pyproject.toml: the code keeps them, and each of them can fail."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"

# contract → (file, the import that breaks it)
OFFENCES = {
    "layers": ("app/core/factories.py", "import app.gateway"),
    "core-layers": ("app/core/entities/jobs.py", "import app.core.services"),
    "service-areas": ("app/core/services/models/resolver.py", "import app.core.services.jobs.training"),
    "core-pure": ("app/core/errors.py", "def late() -> None:\n    import flask"),
    "edges-call-services": ("app/gateway/__init__.py", "import app.repositories"),
    "edges-see-interfaces": ("app/tasks/worker.py", "import app.core.services.jobs.execution"),
    "torch-in-implementations": ("app/bootstrap.py", "from torch.nn import functional"),
    "config-alone": ("config/config.py", "from app.core import errors"),
    "only-bootstrap-reads-config": ("app/extensions.py", "import config.config"),
    "application-without-commands": ("app/__init__.py", "def late() -> None:\n    import app.cli"),
    "no-cycles": ("app/core/entities/datasets.py", "import app.core.entities.jobs, app.core.entities.offence"),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for package in ("app", "config"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "static"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "app/core/entities/offence.py").write_text("import app.core.entities.datasets\n")
    return tmp_path


def lint(tree: Path, *options: str) -> tuple[int, str]:
    """Exit status and output of import-linter on ``tree``: with -c, Python looks in the working folder first."""
    run = subprocess.run(
        [sys.executable, "-c", LINT, "--no-logo", "--no-cache", *options],
        cwd=tree,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return run.returncode, run.stdout


def test_the_code_keeps_every_contract(tree: Path) -> None:
    status, output = lint(tree)
    assert status == 0, output
    assert f"Contracts: {len(OFFENCES)} kept, 0 broken" in output


@pytest.mark.parametrize("contract", OFFENCES)
def test_one_import_breaks_the_contract(tree: Path, contract: str) -> None:
    file, offence = OFFENCES[contract]
    with (tree / file).open("a", encoding="utf-8") as source:
        source.write(f"\n\n{offence}\n")
    status, output = lint(tree, "--contract", contract)
    assert status == 1, output
    assert "Contracts: 0 kept, 1 broken" in output


def test_every_contract_has_its_offence() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert {contract["id"] for contract in contracts} == set(OFFENCES)
