"""Full fine-tuning: every weight learns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.core.interfaces.components import ModelLoader
from app.implementations.training.method import Adaptation

if TYPE_CHECKING:
    import torch
    from torch import nn


class FullAdaptation(Adaptation):
    """A version is a model folder of its own, in the precision in which the base model is stored."""

    publishes = "model"
    resting_bytes = 2.0
    learning_bytes = 8.0  # masters, gradients and state in float32

    def load(self, loader: ModelLoader, folder: Path, precision: torch.dtype, **options: Any) -> Any:
        from transformers import AutoConfig

        place = str(folder)
        stored = AutoConfig.from_pretrained(place, local_files_only=True)  # nosec B615 # a folder
        self._stored = stored.dtype or precision
        return super().load(loader, folder, precision, **options)

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
