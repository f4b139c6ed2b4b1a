"""A tiny encoder with random weights, for tests: BERT's architecture, special tokens and kind of tokenizer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LONGEST = 128


def write_random_encoder(target: Path, text: str, vocabulary: int, seed: int) -> None:
    """Weights (float32), config and tokenizer, whose words are those of ``text``. It has no chat template.

    The same arguments give the same bytes: ``WordPieceTrainer`` has another vocabulary in each process.
    """
    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words = [word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))]
    tokenizer = Tokenizer(models.WordPiece(_vocabulary(words, vocabulary), unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, _SPECIAL.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.save(str(target / "tokenizer.json"))
    names = {f"{token[1:-1].lower()}_token": token for token in _SPECIAL}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **names, "model_max_length": _LONGEST}
    (target / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), "utf-8")
    _write_weights(target, tokenizer.get_vocab_size(), seed)


def _vocabulary(words: Sequence[str], size: int) -> dict[str, int]:
    """Every letter at the start of a word and within one, then whole words, the most frequent first."""
    letters = sorted(set("".join(words)))
    counts = Counter(words)
    frequent = sorted(counts, key=lambda word: (-counts[word], word))
    pieces = dict.fromkeys([*_SPECIAL, *letters, *(f"##{letter}" for letter in letters), *frequent])
    return dict(zip(pieces, range(size), strict=False))


def _write_weights(target: Path, vocabulary: int, seed: int) -> None:
    import torch
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=_LONGEST,
        pad_token_id=_SPECIAL.index("[PAD]"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertForMaskedLM(config).to(torch.float32)
    model.save_pretrained(target)
