"""LoRA by hand: the adaptation ``lora`` without PEFT, published in the same files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from app.core.entities.training_config import TrainingConfig
from app.implementations.training.method import Adaptation

if TYPE_CHECKING:
    from torch import nn


class LoraLinearAdaptation(Adaptation):
    """Freezes the base model and puts a LoraLinear in the place of its linear layers."""

    publishes = "lora"
    lora_options = frozenset({"use_rslora", "loraplus_lr_ratio"})
    resting_bytes = 2.0

    def __init__(self, config: TrainingConfig) -> None:
        super().__init__(config)
        self.settings = config.lora
        self._base_model = ""

    @classmethod
    def problems(cls, config: TrainingConfig) -> Iterable[str]:
        if config.has_label_head:
            yield f"adaptation: {config.adaptation} has no place for a label head, set it to lora"

    def prepare(self, model: nn.Module, base_model: str, start_from: Path | None = None) -> nn.Module:
        """``model`` itself, changed, with adapters in its own precision: masters are the optimizer's.

        ``Invalid`` when ``target_modules`` names no layer of this model, or ``start_from`` has other layers.
        """
        from app.implementations.by_hand.lora_linear import LoraOptions, add_lora, fill_lora, lora_layers

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
        from app.implementations.by_hand.lora_linear import save_lora

        save_lora(model, folder, self._base_model)
