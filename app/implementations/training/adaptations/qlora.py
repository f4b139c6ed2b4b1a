"""QLoRA (Dettmers et al. 2023, arXiv:2305.14314): LoRA over a base model in 4 bits."""

from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from torch import nn

from app.core.entities.training_config import TrainingConfig
from app.implementations.models.devices import pick_device
from app.implementations.models.lean_peft import PeftModel, show_bitsandbytes
from app.implementations.models.loading import load_base_model
from app.implementations.models.nf4 import nf4_options
from app.implementations.training.adaptations.lora import LoraAdaptation, trainable


class QloraAdaptation(LoraAdaptation):
    """The linear layers but the head are NF4. A version holds the adapter alone, as LoRA's do."""

    def __init__(self, config: TrainingConfig) -> None:
        super().__init__(config)
        show_bitsandbytes()
        self._device = pick_device(config.device)
        self._precision = torch.float32

    def load(self, folder: Path, precision: torch.dtype, **options: Any) -> Any:
        self._precision = precision
        model = load_base_model(folder, precision, **nf4_options(precision, self._device), **options)
        for module in model.modules():
            if isinstance(module, Linear4bit):
                # bitsandbytes 0.50 repacks the weights at the first evaluation on a CPU with AVX512-BF16, for
                # good, into a form that has no gradient: training after it would go on without one.
                module.support_avx512bf16_for_cpu = False
        return model

    def prepare(self, model: nn.Module, base_model: str, start_from: Path | None = None) -> PeftModel:
        adapted = super().prepare(model, base_model, start_from)
        for parameter in trainable(adapted).values():  # PEFT takes float32 for them beside 4-bit weights
            parameter.data = parameter.data.to(self._precision)
        return adapted
