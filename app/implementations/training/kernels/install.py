"""Puts the kernels into a model, where they fit it."""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from app.implementations.training.kernels import lora_group, rms_norm
from app.implementations.training.kernels.attention import packed_attention
from app.implementations.training.kernels.frozen_product import lay_out
from app.implementations.training.kernels.lora_group import LoraGroup
from app.implementations.training.kernels.rotary import rotary
from app.implementations.training.kernels.swiglu import swiglu


def install_kernels(model: nn.Module, wanted: Collection[str]) -> list[str]:
    """Replace the forward of the layers that the kernels know, Llama's and Qwen2's: the names of those in use.

    ``model`` is on its device and its weights are whole. What a kernel does not fit stays as it is.
    """
    used = _install_liger(model, wanted)
    wanted = set(wanted) - used
    groups: list[LoraGroup] = []
    module: Any
    for module in model.modules():
        name = type(module).__name__
        if "rms_norm" in wanted and rms_norm.fits(module):
            module.forward = rms_norm.forward_of(module)
            used.add("rms_norm")
        elif "swiglu" in wanted and name in ("LlamaMLP", "Qwen2MLP") and module.config.hidden_act == "silu":
            groups += _install_mlp(module, "lora" in wanted)
            used.add("swiglu")
        elif "attention" in wanted and name in ("LlamaAttention", "Qwen2Attention") and _is_plain(module):
            groups += _install_attention(module, "lora" in wanted)
            used.add("attention")
    if groups:
        lay_out([group.product for group in groups])
        used.add("lora")
    return sorted(used)


def _install_liger(model: Any, wanted: Collection[str]) -> set[str]:
    """On CUDA, Liger Kernel's (arXiv:2410.10989) for what it does better there, where it is installed."""
    names = {"rms_norm", "swiglu"} & set(wanted)
    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    fits = type(causal_lm).__name__ in ("LlamaForCausalLM", "Qwen2ForCausalLM")
    if not (names and fits and causal_lm.device.type == "cuda" and find_spec("liger_kernel")):
        return set()
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    ours = {"rope": False, "cross_entropy": False, "fused_linear_cross_entropy": False}
    chosen = {name: name in names for name in ("rms_norm", "swiglu")}
    _apply_liger_kernel_to_instance(model=causal_lm, **ours, **chosen)
    return names


def _install_mlp(mlp: Any, with_lora: bool) -> list[LoraGroup]:
    gate_up = _side_by_side([mlp.gate_proj, mlp.up_proj], with_lora)
    down = _side_by_side([mlp.down_proj], with_lora)
    mlp.forward = lambda x: down(swiglu(gate_up(x)))
    return [call for call in (gate_up, down) if isinstance(call, LoraGroup)]


def _is_plain(module: Any) -> bool:
    return not module.config.attention_dropout and getattr(module, "sliding_window", None) is None


def _install_attention(module: Any, with_lora: bool) -> list[LoraGroup]:
    qkv = _side_by_side([module.q_proj, module.k_proj, module.v_proj], with_lora)
    out = _side_by_side([module.o_proj], with_lora)
    heads, keys = module.config.num_attention_heads, module.config.num_key_value_heads
    size = module.head_dim

    def forward(
        hidden_states: torch.Tensor, position_embeddings: tuple[torch.Tensor, torch.Tensor], **options: Any
    ) -> Any:
        states = qkv(hidden_states[0]).view(-1, heads + 2 * keys, size)
        turned, value = states.split([heads + keys, keys], 1)
        cos, sin = (angles[0, :, : size // 2] for angles in position_embeddings)
        query, key = rotary(turned, cos, sin).split([heads, keys])
        found = packed_attention(query, key, value.transpose(0, 1), options["segments"], module.scaling)
        return out(found.flatten(1)).unsqueeze(0), None

    module.forward = forward
    return [call for call in (qkv, out) if isinstance(call, LoraGroup)]


def _side_by_side(layers: list[Any], with_lora: bool) -> Any:
    """A call that answers the layers' outputs side by side; the fused one where it fits."""
    if with_lora and lora_group.fits(layers):
        return lora_group.group(layers)
    if len(layers) == 1:
        return layers[0]
    return lambda x: torch.cat([layer(x) for layer in layers], -1)
