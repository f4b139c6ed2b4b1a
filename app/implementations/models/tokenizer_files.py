"""Tokenizers made here: byte-level BPE (Sennrich et al. 2015, arXiv:1508.07909) with a chat template, no torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

_CHATML_TEMPLATE = """{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}
"""


@dataclass(frozen=True, slots=True)
class TokenizerKind:
    bos: str
    eos: str
    special: tuple[str, ...]  # skipped when decoding
    plain: tuple[str, ...]  # one token each, but text when decoding
    template: str


CHATML = TokenizerKind(
    "<|im_start|>", "<|im_end|>", ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), (), _CHATML_TEMPLATE
)


def write_tokenizer(
    kind: TokenizerKind, texts: Iterable[str], target: Path, *, vocabulary: int, context: int
) -> Tokenizer:
    """tokenizer.json, its config and the template. Merges are learnt from ``texts``, the same for the same texts.

    Fewer tokens than ``vocabulary`` where the texts have no more to merge.
    """
    tokenizer = _train(kind, texts, vocabulary)
    tokenizer.save(str(target / "tokenizer.json"))
    (target / "chat_template.jinja").write_text(kind.template, "utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": kind.bos,
        "eos_token": kind.eos,
        "pad_token": kind.eos,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }
    (target / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False), "utf-8")
    return tokenizer


def token_ids(kind: TokenizerKind, tokenizer: Tokenizer) -> dict[str, int | None]:
    """What config.json says of them."""
    names = {"bos_token_id": kind.bos, "eos_token_id": kind.eos, "pad_token_id": kind.eos}
    return {key: tokenizer.token_to_id(text) for key, text in names.items()}


def _train(kind: TokenizerKind, texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Bytes are the alphabet: any text is encoded, and decoded to itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(kind.plain),
        special_tokens=list(kind.special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in kind.plain])
    return tokenizer
