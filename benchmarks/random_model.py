"""A model of DeepSeek-R1-Distill-Qwen-1.5B's shape with random weights: ``python -m benchmarks.random_model FOLDER
TOKENIZER``. Speed and memory do not depend on what the weights say.

It gets the tokenizer of the folder TOKENIZER (SmolLM2's), so that rows have the same ids for both models.
"""

import shutil
import sys
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def main() -> None:
    folder, tokenizer = map(Path, sys.argv[1:])
    building = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            hidden_size=1536,
            num_hidden_layers=28,
            num_attention_heads=12,
            num_key_value_heads=2,
            intermediate_size=8960,
            vocab_size=151936,
            max_position_embeddings=131072,
            rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=False,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=2,
        )
    )
    model.save_pretrained(building)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, building / name)
    building.rename(folder)


if __name__ == "__main__":
    main()
