"""LoRA by PEFT (Hu et al. 2021, arXiv:2106.09685), with rsLoRA, DoRA and LoRA+ as options."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from app.core.entities.training_config import TrainingConfig
from app.core.errors import Fault, Invalid
from app.implementations.training.method import Adaptation

if TYPE_CHECKING:
    from torch import nn

    from app.implementations.models.lean_peft import PeftModel


class LoraAdaptation(Adaptation):
    """Freezes the base model and adds an update to its linear layers."""

    publishes = "lora"
    lora_options = frozenset({"use_rslora", "use_dora", "loraplus_lr_ratio"})
    resting_bytes = 2.0

    def __init__(self, config: TrainingConfig) -> None:
        super().__init__(config)
        self.settings = config.lora

    def prepare(self, model: nn.Module, base_model: str, start_from: Path | None = None) -> PeftModel:
        """The model with adapters in its own precision: masters are the optimizer's.

        Modules that require a gradient already are new, as a label head is: they are trained and saved whole.
        ``Invalid`` when ``target_modules`` names no layer of this model, or ``start_from`` has other layers.
        """
        from app.implementations.models.lean_peft import SEQ_CLS_HEAD_NAMES, LoraConfig, get_peft_model

        self._check_targets(model)
        wanted = self.settings.target_modules
        new = {name.rpartition(".")[0] for name in trainable(model)}
        beside_head = sorted(name for name in new if name.split(".")[0] not in SEQ_CLS_HEAD_NAMES)
        config = LoraConfig(
            r=self.settings.r,
            lora_alpha=self.settings.lora_alpha,
            lora_dropout=self.settings.lora_dropout,
            target_modules=wanted if isinstance(wanted, str) else list(wanted),
            use_rslora=self.settings.use_rslora,
            use_dora=self.settings.use_dora,
            task_type="SEQ_CLS" if new else "CAUSAL_LM",
            modules_to_save=beside_head or None,  # to which PEFT adds the head
        )
        adapted = get_peft_model(model, config, autocast_adapter_dtype=False)
        # What is written beside the weights must name the base model, not a folder of this host.
        adapted.peft_config["default"].base_model_name_or_path = base_model
        if start_from is not None:
            _load_adapter(adapted, start_from)
        return adapted

    def rate_factors(self, names: Iterable[str]) -> Mapping[str, float]:
        """LoRA+ (Hayou et al. 2024, arXiv:2402.12354): B learns faster than A."""
        return {name: self.settings.loraplus_lr_ratio for name in names if ".lora_B." in name}

    def save(self, model: PeftModel, folder: Path) -> None:
        """``adapter_model.safetensors`` and ``adapter_config.json`` as PEFT writes them."""
        with warnings.catch_warnings():
            # PEFT asks the hub about the vocabulary of a base model that is a local name.
            warnings.filterwarnings("ignore", message="Could not find a config file")
            model.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's model card is a form to fill in

    def _check_targets(self, model: nn.Module) -> None:
        if isinstance(self.settings.target_modules, str):
            return
        from torch import nn

        linear = {name.rsplit(".", 1)[-1] for name, m in model.named_modules() if isinstance(m, nn.Linear)}
        unknown = [name for name in self.settings.target_modules if name.rsplit(".", 1)[-1] not in linear]
        if unknown:
            raise Invalid(
                "target_modules name layers that this base model lacks",
                code="invalid_config",
                faults=[
                    Fault("config.lora.target_modules", "unknown", f"{name}; known: {', '.join(sorted(linear))}")
                    for name in unknown
                ],
            )


def _load_adapter(adapted: PeftModel, folder: Path) -> None:
    result = adapted.load_adapter(str(folder), "default", is_trainable=True, torch_device="cpu")
    if result.missing_keys or result.unexpected_keys:
        raise Invalid("from_version: its adapter is not of this config's layers", code="invalid_config")


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that learn, by name, in a stable order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """(trainable, all)."""
    return sum(p.numel() for p in trainable(model).values()), sum(map(_entries, model.parameters()))


def _entries(parameter: nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)  # of 4-bit weights, two of which share a byte
    return parameter.numel() if state is None else int(state.shape.numel())
