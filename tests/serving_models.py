"""A tiny base model and adapters whose answers are varied: with weights of the usual scale, a random model repeats
one token, and an adapter that is not applied would go unnoticed."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from app.implementations.models.random_model import write_random_tokenizer

VOCABULARY, CONTEXT = 512, 256


def write_base(folder: Path, **shape: Any) -> None:
    """``shape``: what is to be otherwise in its LlamaConfig."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_random_tokenizer("llama", folder)
    usual = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "initializer_range": 0.3,
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
    }
    config = LlamaConfig(**{**usual, **shape})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        LlamaForCausalLM(config).save_pretrained(folder)


def write_adapter(base: Path, folder: Path, seed: int, **options: Any) -> Path:
    """``options`` are LoraConfig's. Every matrix is random, none zero."""
    model = LlamaForCausalLM.from_pretrained(base)
    chosen = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **options}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = get_peft_model(model, LoraConfig(init_lora_weights=False, **chosen))
        for name, weight in adapted.named_parameters():
            if ".lora_" in name and weight.ndim == 2:
                torch.nn.init.normal_(weight, std=0.2)
    adapted.save_pretrained(folder)
    return folder
