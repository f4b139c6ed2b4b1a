"""The tokenizer of a model that reads and does not chat: an encoder of the BERT family has no chat template."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from app.core.entities.datasets import Message, TokenizedRow
from app.core.entities.models import not_generative
from app.core.interfaces.components import ChatTokenizer
from app.implementations.data.plain_text import any_of, encode_plain, read_tokenizer
from app.implementations.data.tokenization import FolderChatTokenizer, read_json

# Families that read a text from both sides and write none; each is tested with a label head.
ENCODERS = frozenset({"bert", "distilbert", "electra", "modernbert", "roberta", "xlm-roberta"})


class EncoderTokenizer(ChatTokenizer):
    """Reads tokenizer.json and tokenizer_config.json. What asks for a chat raises ``Invalid`` (not_generative)."""

    template_hash = hashlib.sha256(b"").hexdigest()
    stop_token_ids: Sequence[int] = ()
    generates = False

    def __init__(self, folder: Path) -> None:
        self._tokenizer = read_tokenizer(folder)
        # The model has no positions beyond it: a setting of ours cannot stretch them.
        self._longest = read_json(folder / "tokenizer_config.json").get("model_max_length", 512)
        added = self._tokenizer.get_added_tokens_decoder().values()
        self._control = any_of(token.content for token in added if token.special)

    def encode_plain(self, text: str, max_length: int) -> TokenizedRow:
        """See the interface. Nothing beyond what the model itself can read is kept, whatever ``max_length``."""
        return encode_plain(self._tokenizer, self._control, text, min(max_length, self._longest))

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        raise not_generative("an encoder")

    def encode_training(self, messages: Sequence[Message], max_length: int | None) -> TokenizedRow:
        raise not_generative("an encoder")

    def encode_text(self, text: str) -> list[int]:
        raise not_generative("an encoder")

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def split_reasoning(self, text: str) -> tuple[str | None, str]:
        return None, text


def load_tokenizer(folder: Path) -> ChatTokenizer:
    """That of a base model's folder or of a version's. Raises what the two classes raise."""
    is_encoder = read_json(folder / "config.json").get("model_type") in ENCODERS
    return EncoderTokenizer(folder) if is_encoder else FolderChatTokenizer(folder)
