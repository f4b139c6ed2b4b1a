"""Whether a folder holds a LoRA adapter that this engine can serve over its base model. Opens no weights."""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
LARGEST_HEADER = 100 * 1024 * 1024  # bytes, the format's own limit

# Keys of PEFT's LoraConfig that change nothing here, or that PEFT applies within the adapter's own layers. Any
# other that is set touches the base model or needs more than the adapter's weights.
_SERVED_KEYS = (
    *("auto_mapping", "base_model_name_or_path", "revision", "peft_type", "peft_version", "task_type"),
    *("inference_mode", "lora_dropout", "init_lora_weights", "bias", "r", "lora_alpha", "use_rslora", "use_dora"),
    *("lora_bias", "rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "layers_to_transform"),
    *("layers_pattern", "fan_in_fan_out", "megatron_core", "qalora_group_size"),
)
# What a file may hold for one layer: suffix → the axis that must fit the layer, the other being the rank.
_MATRICES = {".lora_A.weight": 1, ".lora_B.weight": 0}
_VECTORS = (".lora_B.bias", ".lora_magnitude_vector", ".lora_magnitude_vector.weight")


class AdapterRefused(Exception):
    """Why this adapter cannot be served, in words for the one who asked; names no path."""


def check_adapter(folder: Path, linear_shapes: Mapping[str, tuple[int, int]]) -> list[str]:
    """The layers that it adapts. Raises ``AdapterRefused``.

    ``linear_shapes``: the base model's linear layers, name → (out, in).
    """
    _check_config(_read_config(folder))
    ranks: dict[str, list[int]] = {}
    for name, shape in _read_shapes(folder).items():
        layer, axis = _place(name)
        if layer not in linear_shapes:
            raise AdapterRefused(f"the base model has no linear layer {layer[:80]!r}")
        if axis is None:
            continue
        expected = linear_shapes[layer][axis]
        if len(shape) != 2 or shape[axis] != expected:
            raise AdapterRefused(f"{name[:120]}: shape {shape}, but the base model's layer needs {expected}")
        ranks.setdefault(layer, []).append(shape[1 - axis])
    if not ranks:
        raise AdapterRefused(f"{WEIGHTS_FILE} holds no LoRA matrices")
    if broken := [layer for layer, found in ranks.items() if len(found) != 2 or found[0] != found[1]]:
        raise AdapterRefused(f"{broken[0][:80]}: needs lora_A and lora_B of one rank")
    return sorted(ranks)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    except OSError:
        raise AdapterRefused(f"{CONFIG_FILE} cannot be read") from None
    except (ValueError, RecursionError):
        raise AdapterRefused(f"{CONFIG_FILE} is not JSON") from None
    if not isinstance(config, dict):
        raise AdapterRefused(f"{CONFIG_FILE} is not an object")
    return config


def _check_config(config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise AdapterRefused(f"peft_type is {str(config.get('peft_type'))[:40]!r}; only LORA is served")
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        raise AdapterRefused(f"task_type is {str(config['task_type'])[:40]!r}; only CAUSAL_LM is served")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1:
        raise AdapterRefused("r is not a positive whole number")
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise AdapterRefused("lora_alpha is not a number")
    if config.get("bias", "none") != "none":
        raise AdapterRefused("bias is trained: publish this adapter merged")
    if config.get("init_lora_weights") not in (None, True, False, "gaussian", "orthogonal", "eva"):
        raise AdapterRefused("init_lora_weights changes the base model: convert the adapter to plain LoRA")
    if extra := sorted(key for key, value in config.items() if value and key not in _SERVED_KEYS):
        raise AdapterRefused(f"not served as an adapter, publish it merged: {', '.join(extra)[:200]}")


def _read_shapes(folder: Path) -> dict[str, list[int]]:
    """The shapes in a safetensors file: eight bytes of length, then a JSON header."""
    try:
        with (folder / WEIGHTS_FILE).open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, LARGEST_HEADER)))
        return {name: list(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    except OSError:
        raise AdapterRefused(f"{WEIGHTS_FILE} cannot be read") from None
    except (ValueError, RecursionError, struct.error, AttributeError, TypeError, KeyError):
        raise AdapterRefused(f"{WEIGHTS_FILE} is not a safetensors file") from None


def _place(name: str) -> tuple[str, int | None]:
    """(layer, axis to check) of a tensor's name."""
    for suffix in (*_MATRICES, *_VECTORS):
        if name.endswith(suffix):
            return name.removesuffix(suffix).removeprefix("base_model.model."), _MATRICES.get(suffix)
    raise AdapterRefused(f"{WEIGHTS_FILE} holds {name[:120]!r}, which is not of a LoRA on a linear layer")
