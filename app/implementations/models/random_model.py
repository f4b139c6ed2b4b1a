"""Tiny models with random weights: for tests, and to see the whole path run in seconds. They answer nonsense.

Same architecture classes, files, special tokens and chat template as the families they stand for: ``llama`` with
ChatML (SmolLM2), ``qwen2`` with a template that thinks first (DeepSeek-R1-Distill-Qwen), ``bert`` without one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from app.core.errors import Invalid
from app.implementations.models.random_encoder import write_random_encoder
from app.implementations.models.tokenizer_files import CHATML, TokenizerKind, token_ids, write_tokenizer

_SEED = 0
_VOCABULARY = 512
_CONTEXT = 2048

# What the tokenizer's merges are learnt from: the words of a support desk.
_TEXT = """Hello, how can I help you today? Please tell me your order number and I will look into it.
The order was shipped on Monday and should arrive within three working days. You can return an item
within thirty days of delivery, and we refund the price to the card that you paid with. What is the
warranty on this product? It is two years from the day of purchase. Is there anything else that you
would like to know about shipping, payment, invoices, accounts, or opening hours? Thank you, goodbye.
"""

# As DeepSeek-R1's own: the system prompt first, earlier thoughts dropped, and a thought opened for the answer.
_THINKING = """{%- for message in messages if message['role'] == 'system' -%}
{%- if loop.first -%}{{ bos_token + message['content'] }}{%- endif -%}
{%- else -%}{{ bos_token }}
{%- endfor -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{{ '<｜User｜>' + message['content'] }}
{%- elif message['role'] == 'assistant' -%}
{{ '<｜Assistant｜>' + message['content'].split('</think>')[-1] + eos_token }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<｜Assistant｜><think>\n' }}{%- endif -%}
"""


_PRESETS = {
    "llama": CHATML,
    "qwen2": TokenizerKind(
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        ("<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>"),
        ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
        _THINKING,
    ),
}


def write_random_model(preset_name: str, target: Path) -> None:
    """Weights (about 0.1 M parameters, float32, seeded), tokenizer, template and generation config."""
    if preset_name == "bert":
        write_random_encoder(target, _TEXT, _VOCABULARY, _SEED)
        return
    tokenizer = write_random_tokenizer(preset_name, target)
    _write_weights(preset_name, target, vocab_size=_VOCABULARY, **token_ids(_PRESETS[preset_name], tokenizer))


def write_random_tokenizer(preset_name: str, target: Path) -> Tokenizer:
    """tokenizer.json, its config and the template, without torch. ``Invalid`` for an unknown preset."""
    if preset_name not in _PRESETS:
        raise Invalid(f"unknown preset {preset_name!r}; known: {', '.join(sorted([*_PRESETS, 'bert']))}")
    preset = _PRESETS[preset_name]
    return write_tokenizer(preset, [_TEXT], target, vocabulary=_VOCABULARY, context=_CONTEXT)


def _write_weights(preset_name: str, target: Path, **tokens: int | None) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    families: dict[str, tuple[Any, Any]] = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    }
    config_class, model_class = families[preset_name]
    config = config_class(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=_CONTEXT,
        tie_word_embeddings=True,
        **tokens,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = model_class(config).to(torch.float32)
    model.save_pretrained(target)
