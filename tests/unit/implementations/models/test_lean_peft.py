"""bitsandbytes is loaded by who needs it and by nobody else. In new processes: imports are for good."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
PROGRAM = """
import sys
from pathlib import Path

import torch

import app.implementations.evaluation.generation
import app.implementations.serving.adapters
import app.implementations.training.kernels.install
from app.registries import ADAPTATIONS
from app.core.entities.training_config import TrainingConfig
from app.implementations.models.loading import loader_for
from app.implementations.models.random_model import write_random_model

folder = Path(sys.argv[1])
write_random_model("llama", folder)
for name in sys.argv[2:]:
    adaptation = ADAPTATIONS.create(name, config=TrainingConfig(adaptation=name, device="cpu", r=4))
    model = adaptation.prepare(adaptation.load(loader_for(adaptation.quantised), folder, torch.float32), "tiny")
    kinds = {type(module).__name__ for module in model.modules()}
    print(name, "bitsandbytes" in sys.modules, "Linear4bit" in kinds)
"""


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["lora", "full"], ["lora False False", "full False False"]),
        (["lora", "qlora", "lora"], ["lora False False", "qlora True True", "lora True False"]),
    ],
)
def test_who_loads_bitsandbytes(names: list[str], said: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-len(said) :] == said
