from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running_engine import Engine, running
from tests.serving_models import write_adapter, write_base


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with the base model ``tiny-random``, and adapters ``one`` and ``two`` beside it."""
    root = tmp_path_factory.mktemp("models")
    base = root / "base" / "tiny-random"
    write_base(base)
    write_adapter(base, root / "one", 1)
    write_adapter(base, root / "two", 2, r=8, target_modules=["q_proj", "down_proj"])
    return root


@pytest.fixture(scope="module")
def engine(models_dir: Path) -> Iterator[Engine]:
    with running(models_dir) as engine:
        for name in ("one", "two"):
            assert engine.load(name, models_dir / name).status_code == 200
        yield engine
