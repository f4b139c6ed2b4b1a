"""A LoRA adapter's files as the fast path's matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from app.implementations.models.lean_peft import LoraConfig, get_pattern_key
from app.implementations.serving.adapter_files import WEIGHTS_FILE, AdapterRefused
from app.implementations.serving.decoder import GROUPS, Decoder
from app.implementations.serving.lora_weights import AdapterPart, AdapterWeights
from app.implementations.serving.packed_linear import Product

_PREFIX = "base_model.model."


def read_adapter(folder: Path, decoder: Decoder, key: str) -> AdapterWeights:
    """Of a folder that ``check_adapter`` has passed. ``AdapterRefused`` where weights and config disagree."""
    config = LoraConfig.from_pretrained(folder)
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_file(folder / WEIGHTS_FILE).items():
        if not bool(torch.isfinite(tensor).all()):
            raise AdapterRefused("the weights hold numbers that are not finite")
        module, _, kind = name.removeprefix(_PREFIX).partition(".lora_")
        found.setdefault(module, {})[kind.removesuffix(".weight")] = tensor.float()
    rank = max(tensors["A"].shape[0] for tensors in found.values())
    parts: dict[str, AdapterPart] = {}
    for module, tensors in found.items():
        group, layer, place = _where(module)
        if group not in parts:
            parts[group] = _empty(decoder, group, rank)
        scaling = _scaling(config, module, tensors["A"].shape[0])
        product = decoder.layers[layer].products[group]
        _place(parts[group], layer, place, tensors, scaling, product, config.use_dora)
    return AdapterWeights(key, rank, parts)


def _where(module: str) -> tuple[str, int, int]:
    """Group, layer, and place among the group's modules."""
    if not module.startswith("model.layers."):
        raise AdapterRefused(f"{module[:80]} is adapted: publish this adapter merged")
    layer, _, name = module.removeprefix("model.layers.").partition(".")
    group = next(group for group, modules in GROUPS.items() if name in modules)
    return group, int(layer), GROUPS[group].index(name)


def _empty(decoder: Decoder, name: str, rank: int) -> AdapterPart:
    group = decoder.groups[name]
    down = torch.zeros(group.layers, rank, len(group.outs), group.ins, dtype=decoder.dtype)
    return AdapterPart(down, torch.zeros(group.layers, rank, sum(group.outs), dtype=decoder.dtype))


def _scaling(config: Any, module: str, rank: int) -> float:
    """As PEFT: patterns may give a module a rank and an alpha of its own."""
    if config.rank_pattern.get(get_pattern_key(config.rank_pattern, module), config.r) != rank:
        raise AdapterRefused("the weights are not those that its config names")
    alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern, module), config.lora_alpha)
    return float(alpha / (math.sqrt(rank) if config.use_rslora else rank))


def _place(
    part: AdapterPart,
    layer: int,
    module: int,
    tensors: Mapping[str, Tensor],
    scaling: float,
    product: Product,
    dora: bool,
) -> None:
    down, up = tensors["A"], tensors["B"] * scaling
    rank = down.shape[0]
    part.down[layer, :rank, module] = down
    part.up[layer, :rank, _columns(product, module)] = up.t()
    if (offset := tensors.get("B.bias")) is not None:
        part.offsets[layer, module] = (offset * scaling).to(part.down.dtype)
    magnitude = tensors.get("magnitude_vector")
    if dora != (magnitude is not None):
        raise AdapterRefused("the weights are not those that its config names")
    if magnitude is not None:
        gain = magnitude / _norms(product, module, down, up)
        part.gains[layer, module] = gain.to(part.down.dtype)


def _norms(product: Product, module: int, down: Tensor, up: Tensor) -> Tensor:
    """Of the rows of W + up·down, [out], as DoRA has them (https://arxiv.org/abs/2402.09353), without W itself."""
    columns = _columns(product, module)
    base = product.multiply(down)[:, columns].float()  # down·Wᵀ, [rank, out]
    squares = product.norms[columns] + 2 * (up * base.t()).sum(1) + (up @ (down @ down.t()) * up).sum(1)
    return squares.clamp_min(1e-12).sqrt()


def _columns(product: Product, module: int) -> slice:
    start = sum(product.outs[:module])
    return slice(start, start + product.outs[module])
