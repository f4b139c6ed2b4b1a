"""Full fine-tuning: every weight learns."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig

from app.core.entities.training_config import TrainingConfig
from app.implementations.models.loading import load_base_model
from app.implementations.training.method import Adaptation


class FullAdaptation(Adaptation):
    """A version is a model folder of its own, in the precision in which the base model is stored."""

    def __init__(self, config: TrainingConfig) -> None:
        self._stored = torch.float32

    def load(self, folder: Path, precision: torch.dtype, **options: Any) -> Any:
        place = str(folder)
        stored = AutoConfig.from_pretrained(place, local_files_only=True)  # nosec B615 # a folder
        self._stored = stored.dtype or precision
        return load_base_model(folder, precision, **options)

    def prepare(self, model: Any, base_model: str, start_from: Path | None = None) -> nn.Module:
        """``model`` itself. Tied weights are one parameter and learn as one."""
        if start_from is not None:
            version = type(model).from_pretrained(
                str(start_from), dtype=model.dtype, local_files_only=True, use_safetensors=True
            )
            model.load_state_dict(version.state_dict())
        learning: nn.Module = model.requires_grad_(True)
        return learning

    def save(self, model: Any, folder: Path) -> None:
        """``config.json`` and ``*.safetensors`` as transformers writes and opens them. Rounds ``model`` itself."""
        model.to(self._stored).save_pretrained(str(folder))
