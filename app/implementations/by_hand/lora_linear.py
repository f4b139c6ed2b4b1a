"""LoRA written out by hand (Hu et al. 2021, arXiv:2106.09685), to read and to check PEFT against.

Beside a frozen layer y = W·x stands a second path through a narrow waist: y = W·x + s·B·A·x, with A (r, in),
B (out, r), and r far below both. Only A and B learn. B starts at zero, so that training starts from the base
model's own answers.

An adapter is saved as PEFT saves one: plain PEFT opens it, and so does the engine.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from app.core.errors import Fault, Invalid

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
ALL_LINEAR: Literal["all-linear"] = "all-linear"

_PREFIX = "base_model.model."  # the names that a model has inside PEFT's two wrappers
# Keys of PEFT's config that change nothing in the sum above, or that the names of the weights say better.
_KNOWN_KEYS = (
    *("peft_type", "peft_version", "task_type", "base_model_name_or_path", "revision", "auto_mapping"),
    *("r", "lora_alpha", "lora_dropout", "use_rslora", "bias", "inference_mode", "init_lora_weights"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("megatron_core", "qalora_group_size"),  # of features that are off
)


@dataclass(frozen=True, slots=True)
class LoraOptions:
    r: int  # rank of the update
    alpha: float
    dropout: float = 0.0  # of the input of A, in training only
    rslora: bool = False

    @property
    def scaling(self) -> float:
        """alpha / r; rsLoRA, for high ranks, has alpha / √r (Kalajdzievski 2023, arXiv:2312.03732)."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)


class LoraLinear(nn.Module):
    """``base``, frozen, with an update that learns: (…, in) → (…, out). A and B have the precision of ``base``."""

    unmerged: torch.Tensor | None  # W, while ``base`` holds the sum

    def __init__(self, base: nn.Linear, options: LoraOptions) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.options = options
        place: dict[str, Any] = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.lora_A = nn.Parameter(torch.empty(options.r, base.in_features, **place))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, options.r, **place))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # as nn.Linear starts, and so PEFT
        self.dropout = nn.Dropout(options.dropout)
        self.register_parameter("unmerged", None)
        self.train(base.training)  # no dropout in a model that is answering

    @property
    def merged(self) -> bool:
        return self.unmerged is not None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.base(x)
        if self.merged:
            return result
        waist = linear(self.dropout(x.to(self.lora_A.dtype)), self.lora_A)
        return (result + linear(waist, self.lora_B) * self.options.scaling).to(result.dtype)

    def merge(self) -> None:
        """W becomes W + s·B·A: one product for each input, as fast as without an adapter.

        Once more does nothing. W is kept beside the sum, for subtracting would not give it back: in bf16 the sum
        has lost digits of it.
        """
        if self.merged:
            return
        frozen = self.base.weight
        update = self.lora_B.detach().float() @ self.lora_A.detach().float() * self.options.scaling
        # A new parameter: the old one may be the embedding's too.
        self.base.weight = nn.Parameter((frozen.float() + update).to(frozen.dtype), requires_grad=False)
        self.unmerged = frozen

    def unmerge(self) -> None:
        """W as it was, bit for bit, and the update beside it. Once more does nothing."""
        if self.unmerged is not None:
            self.base.weight = self.unmerged
            self.unmerged = None

    def extra_repr(self) -> str:
        return f"r={self.options.r}, scaling={self.options.scaling:g}, merged={self.merged}"


def add_lora(
    model: nn.Module, options: LoraOptions, targets: Literal["all-linear"] | Iterable[str] = ALL_LINEAR
) -> list[str]:
    """Freeze ``model`` and put a LoraLinear in the place of each target; the answer is their names.

    ``targets`` are names of modules or the ends of such (``q_proj``), or ``all-linear``: every linear layer but
    the output head. ``Invalid`` when one of them names no linear layer; then the model is as it was.
    """
    if lora_layers(model):
        raise ValueError("this model has adapters already")
    chosen = _body_layers(model) if isinstance(targets, str) else _named_layers(model, targets)
    model.requires_grad_(False)
    for name in chosen:
        _replace(model, name, options)
    return chosen


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def merge_lora(model: nn.Module) -> None:
    for layer in lora_layers(model).values():
        layer.merge()


def unmerge_lora(model: nn.Module) -> None:
    for layer in lora_layers(model).values():
        layer.unmerge()


def save_lora(model: nn.Module, folder: Path, base_model: str) -> None:
    """``adapter_config.json`` and ``adapter_model.safetensors``; ``base_model`` is a name to note in the first."""
    layers = lora_layers(model)
    options = next(iter(layers.values())).options
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": options.r,
        "lora_alpha": options.alpha,
        "lora_dropout": options.dropout,
        "use_rslora": options.rslora,
        "target_modules": sorted(layers),
        "bias": "none",
        "inference_mode": True,
    }
    weights = {}
    for name, layer in layers.items():
        weights[f"{_PREFIX}{name}.lora_A.weight"] = layer.lora_A.detach().cpu().contiguous()
        weights[f"{_PREFIX}{name}.lora_B.weight"] = layer.lora_B.detach().cpu().contiguous()
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def load_lora(model: nn.Module, folder: Path) -> list[str]:
    """Add the adapter of ``folder`` to ``model``, in the precision of its file; the answer is the layers' names.

    ``Invalid`` for an adapter that is more than A and B on linear layers (DoRA, trained biases, ranks by layer …),
    or that is not of this model.
    """
    add_lora(model, _read_options(folder), _read_pairs(folder))
    return fill_lora(model, folder)


def fill_lora(model: nn.Module, folder: Path) -> list[str]:
    """Put the weights of ``folder`` into the adapter that ``model`` has. ``Invalid`` for others than it has."""
    pairs, layers = _read_pairs(folder), lora_layers(model)
    if odd := sorted(pairs.keys() ^ layers.keys()):
        raise _refused(f"{odd[0]} is adapted in one of the two only")
    for name, layer in layers.items():
        for own, kept in zip((layer.lora_A, layer.lora_B), pairs[name], strict=True):
            if own.shape != kept.shape:
                raise _refused(f"{name}: {tuple(kept.shape)} does not fit, {tuple(own.shape)} would")
            own.data = kept.to(own.device)
    return sorted(layers)


def _body_layers(model: nn.Module) -> list[str]:
    """Every linear layer but the head that turns states into logits."""
    head = model.get_output_embeddings() if isinstance(model, PreTrainedModel) else None
    return [name for name, module in _linear_layers(model).items() if module is not head]


def _named_layers(model: nn.Module, targets: Iterable[str]) -> list[str]:
    linears = _linear_layers(model)
    chosen: set[str] = set()
    unknown = []
    for target in targets:
        found = [name for name in linears if name == target or name.endswith(f".{target}")]
        chosen.update(found)
        if not found:
            unknown.append(target)
    if unknown:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in linears}))
        raise Invalid(
            "target_modules name layers that this base model lacks",
            code="invalid_config",
            faults=[Fault("config.lora.target_modules", "unknown", f"{name}; known: {known}") for name in unknown],
        )
    return [name for name in linears if name in chosen]


def _linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def _replace(model: nn.Module, name: str, options: LoraOptions) -> None:
    parent, _, attribute = name.rpartition(".")
    base = model.get_submodule(name)
    assert isinstance(base, nn.Linear)
    setattr(model.get_submodule(parent), attribute, LoraLinear(base, options))


def _read_options(folder: Path) -> LoraOptions:
    config: Mapping[str, Any] = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    if config["peft_type"] != "LORA":
        raise _refused(f"its peft_type is {config['peft_type']}")
    extra = sorted(key for key, value in config.items() if value and key not in _KNOWN_KEYS)
    if config.get("bias", "none") != "none":
        extra.append("bias")
    if isinstance(start := config.get("init_lora_weights"), str) and start not in (
        "gaussian",
        "orthogonal",
        "eva",
    ):
        extra.append("init_lora_weights")  # such a start has changed W itself
    if extra:
        raise _refused(f"it sets {', '.join(extra)}")
    return LoraOptions(
        config["r"], config["lora_alpha"], config.get("lora_dropout", 0.0), config.get("use_rslora", False)
    )


def _read_pairs(folder: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Layer → (A, B)."""
    weights = load_file(folder / WEIGHTS_FILE)
    suffixes = (".lora_A.weight", ".lora_B.weight")
    layers = [key.removeprefix(_PREFIX).removesuffix(suffixes[0]) for key in weights if key.endswith(suffixes[0])]
    pairs = {}
    for layer in layers:
        keys = [f"{_PREFIX}{layer}{suffix}" for suffix in suffixes]
        if any(key not in weights for key in keys):
            raise _refused(f"{layer} has no B")
        pairs[layer] = (weights[keys[0]], weights[keys[1]])
    if len(weights) != 2 * len(pairs):
        raise _refused("it holds more than A and B of linear layers")
    return pairs


def _refused(why: str) -> Invalid:
    return Invalid(f"the adapter cannot be opened as plain LoRA: {why}", code="adapter_not_supported")
