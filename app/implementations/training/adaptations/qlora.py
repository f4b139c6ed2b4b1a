"""QLoRA (Dettmers et al. 2023, arXiv:2305.14314): LoRA over a base model in 4 bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.core.interfaces.components import ModelLoader
from app.implementations.training.adaptations.lora import LoraAdaptation, trainable

if TYPE_CHECKING:
    import torch
    from torch import nn

    from app.implementations.models.lean_peft import PeftModel


class QloraAdaptation(LoraAdaptation):
    """The linear layers but the head are NF4. A version holds the adapter alone, as LoRA's do."""

    quantised = True
    resting_bytes = 0.45  # four bits of sixteen, and a head and embeddings as they were

    def load(self, loader: ModelLoader, folder: Path, precision: torch.dtype, **options: Any) -> Any:
        from bitsandbytes.nn import Linear4bit

        self._precision = precision
        model = super().load(loader, folder, precision, **options)
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
