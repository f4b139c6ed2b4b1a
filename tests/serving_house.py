"""Tiny base models of the families that the fast path knows, and adapters of every kind over them, as files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from app.implementations.models.loading import CausalLoader
from app.implementations.serving.fast_model import FastModel
from app.implementations.serving.kernels import Kernels

VOCABULARY = 300
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE, rope_parameters=LLAMA3),
    "biased": LlamaConfig(
        **{**SHAPE, "tie_word_embeddings": True}, head_dim=64, attention_bias=True, mlp_bias=True
    ),
    "qwen2": Qwen2Config(**SHAPE),
}
ADAPTERS: list[dict[str, Any]] = [
    {"r": 4, "lora_alpha": 8},
    {"r": 12, "lora_alpha": 4, "use_rslora": True},
    {
        "r": 3,
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {"v_proj": 7},
        "alpha_pattern": {"q_proj": 1},
    },
    {"r": 2, "use_dora": True},
    {"r": 5, "lora_bias": True, "target_modules": ["o_proj", "gate_proj", "up_proj", "down_proj"]},
]


class House:
    """A base model with a trunk of random weights, and adapters over it, as files."""

    def __init__(
        self, family: str, place: Path, kernels: Kernels, adapters: Sequence[dict[str, Any]] = ADAPTERS
    ) -> None:
        self.base = place / "base"
        self.kernels = kernels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            network = AutoModelForCausalLM.from_config(CONFIGS[family])
            for name, weight in network.named_parameters():
                if name.endswith("bias"):
                    torch.nn.init.normal_(weight, std=0.3)
            network.save_pretrained(self.base)
            self.adapters = [self._adapter(place / str(n), options) for n, options in enumerate(adapters)]

    def _adapter(self, folder: Path, options: dict[str, Any]) -> Path:
        chosen = {"target_modules": "all-linear", "task_type": "CAUSAL_LM", "init_lora_weights": False, **options}
        network = get_peft_model(AutoModelForCausalLM.from_pretrained(self.base), LoraConfig(**chosen))
        for name, weight in network.named_parameters():
            if ".lora_" in name and "magnitude" not in name:
                torch.nn.init.normal_(weight, std=0.2)
            elif "magnitude" in name:
                torch.nn.init.uniform_(weight, 0.5, 2.0)
        network.save_pretrained(folder)
        return folder

    def fast(self, kv_bytes: int = 2**27) -> FastModel:
        return FastModel(CausalLoader().load(self.base, torch.float32).eval(), kv_bytes, self.kernels)

    def plain(self, adapter: Path | None) -> Any:
        network = AutoModelForCausalLM.from_pretrained(self.base)
        return (network if adapter is None else PeftModel.from_pretrained(network, adapter)).eval()
