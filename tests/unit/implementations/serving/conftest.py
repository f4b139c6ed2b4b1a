from pathlib import Path

import pytest
import torch

from app.implementations.serving.kernels import Kernels
from app.implementations.serving.native.build import NotBuilt, load
from app.implementations.serving.native.kernels import NativeKernels
from app.implementations.serving.torch_kernels import TorchKernels
from tests.serving_models import write_adapter, write_base


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_base(folder)
    return folder


@pytest.fixture(scope="session")
def adapter_folders(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name → folder: different ranks, scalings and targets."""
    root = tmp_path_factory.mktemp("adapters")
    options = {
        "plain": {},
        "rank.16": {"r": 16, "lora_alpha": 4, "use_rslora": True},
        "attention": {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 7}},
        "dora": {"use_dora": True},
    }
    return {
        name: write_adapter(base_folder, root / name, seed, **chosen)
        for seed, (name, chosen) in enumerate(options.items())
    }


@pytest.fixture(scope="session", params=["torch", "native"])
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    if request.param == "torch":
        return TorchKernels()
    try:
        return NativeKernels(load(tmp_path_factory.mktemp("kernels")), torch.float32)
    except NotBuilt as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Two threads that wait for each other cost tiny products more than they save."""
    torch.set_num_threads(1)
