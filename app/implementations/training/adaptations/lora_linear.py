"""LoRA by hand: the adaptation ``lora`` without PEFT, published in the same files."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from app.core.entities.training_config import TrainingConfig
from app.implementations.by_hand.lora_linear import LoraOptions, add_lora, fill_lora, lora_layers, save_lora
from app.implementations.models.loading import load_base_model
from app.implementations.training.method import Adaptation


class LoraLinearAdaptation(Adaptation):
    """Freezes the base model and puts a LoraLinear in the place of its linear layers."""

    def __init__(self, config: TrainingConfig) -> None:
        self.settings = config.lora
        self._base_model = ""

    def load(self, folder: Path, precision: torch.dtype, **options: Any) -> Any:
        return load_base_model(folder, precision, **options)

    def prepare(self, model: nn.Module, base_model: str, start_from: Path | None = None) -> nn.Module:
        """``model`` itself, changed, with adapters in its own precision: masters are the optimizer's.

        ``Invalid`` when ``target_modules`` names no layer of this model, or ``start_from`` has other layers.
        """
        wanted = self.settings
        options = LoraOptions(wanted.r, wanted.lora_alpha, wanted.lora_dropout, wanted.use_rslora)
        add_lora(model, options, wanted.target_modules)
        if start_from is not None:
            fill_lora(model, start_from)
            for layer in lora_layers(model).values():
                layer.to(layer.base.weight.dtype)  # the file has float32
        self._base_model = base_model
        return model

    def rate_factors(self, names: Iterable[str]) -> Mapping[str, float]:
        """LoRA+ (Hayou et al. 2024, arXiv:2402.12354): B learns faster than A."""
        return {name: self.settings.loraplus_lr_ratio for name in names if name.endswith(".lora_B")}

    def save(self, model: nn.Module, folder: Path) -> None:
        """``adapter_model.safetensors`` and ``adapter_config.json``, for PEFT to open."""
        save_lora(model, folder, self._base_model)
