"""A tiny encoder with random weights, for tests: BERT's architecture, special tokens and kind of tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LONGEST = 128


def write_random_encoder(target: Path, text: str, vocabulary: int, seed: int) -> None:
    """Weights (float32), config and tokenizer, whose words are learnt from ``text``. It has no chat template."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106  (no password)
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=list(_SPECIAL), show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
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
