"""LoRA adapters of random weights, as PEFT saves them."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

RANK = 8
_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def write_adapters(base: Path, folder: Path, count: int) -> Sequence[Path]:
    """On every linear layer of the Llama or Qwen2 in ``base``; each changes what the model says a little."""
    shape = json.loads((base / "config.json").read_text("utf-8"))
    hidden, wide, heads = shape["hidden_size"], shape["intermediate_size"], shape["num_attention_heads"]
    size = shape.get("head_dim") or hidden // heads
    widths = {
        **dict.fromkeys(("k_proj", "v_proj"), (hidden, shape["num_key_value_heads"] * size)),
        **dict.fromkeys(("gate_proj", "up_proj"), (hidden, wide)),
        "q_proj": (hidden, heads * size),
        "o_proj": (heads * size, hidden),
        "down_proj": (wide, hidden),
    }
    made = []
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        weights = {}
        for layer in range(shape["num_hidden_layers"]):
            for module in _MODULES:
                block = "mlp" if module in ("gate_proj", "up_proj", "down_proj") else "self_attn"
                name = f"base_model.model.model.layers.{layer}.{block}.{module}"
                ins, outs = widths[module]
                weights[f"{name}.lora_A.weight"] = torch.randn(RANK, ins, generator=generator) / ins**0.5
                weights[f"{name}.lora_B.weight"] = torch.randn(outs, RANK, generator=generator) * 0.01
        place = folder / f"a{number}"
        place.mkdir(parents=True)
        save_file(weights, place / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK}
        (place / "adapter_config.json").write_text(
            json.dumps({**config, "target_modules": list(_MODULES), "bias": "none"}), "utf-8"
        )
        made.append(place)
    return made
