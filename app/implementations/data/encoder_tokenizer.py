"""The tokenizer of a model that reads and does not chat: an encoder of the BERT family has no chat template."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from app.core.entities.datasets import Message, TokenizedRow
from app.core.entities.models import not_generative
from app.core.entities.reasoning import Reasoning
from app.core.entities.tool_calls import Tool
from app.core.interfaces.components import ChatTokenizer
from app.implementations.data.chat_template import template_text
from app.implementations.data.plain_text import (
    any_of,
    encode_plain,
    fingerprint_of,
    read_tokenizer,
    token_texts,
)
from app.implementations.data.template_trial import TRIED, try_once
from app.implementations.data.tokenization import FolderChatTokenizer, read_json

# Families that read a text from both sides and write none; each is tested with a label head.
ENCODERS = frozenset({"bert", "distilbert", "electra", "modernbert", "roberta", "xlm-roberta"})


class EncoderTokenizer(ChatTokenizer):
    """Reads tokenizer.json and tokenizer_config.json. What asks for a chat raises ``Invalid`` (not_generative)."""

    template_text = ""
    template_hash = hashlib.sha256(b"").hexdigest()
    stop_token_ids: Sequence[int] = ()
    generates = False

    def __init__(self, folder: Path) -> None:
        self._tokenizer = read_tokenizer(folder)
        self._files = fingerprint_of(folder)
        # The model has no positions beyond it: a setting of ours cannot stretch them.
        self._longest = read_json(folder / "tokenizer_config.json").get("model_max_length", 512)
        added = self._tokenizer.get_added_tokens_decoder().values()
        self._control = any_of(token.content for token in added if token.special)

    @property
    def fingerprint(self) -> str:
        return self._files

    def encode_plain(self, text: str, max_length: int | None) -> TokenizedRow:
        """See the interface. Nothing beyond what the model itself can read is kept, whatever ``max_length``."""
        room = None if max_length is None else min(max_length, self._longest)
        return encode_plain(self._tokenizer, self._control, text, room)

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        return token_texts(self._tokenizer, ids)

    def encode_prompt(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[int]:
        raise not_generative("an encoder")

    def encode_training(self, messages: Sequence[Message], max_length: int | None) -> TokenizedRow:
        raise not_generative("an encoder")

    def encode_text(self, text: str) -> list[int]:
        raise not_generative("an encoder")

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    def split_reasoning(self, text: str) -> tuple[str | None, str]:
        return None, text


def load_tokenizer(folder: Path, reasoning: Reasoning = "keep") -> ChatTokenizer:
    """That of a base model's folder or of a version's. Raises what the two classes raise.

    A chat template that was not met before is tried first: ``Invalid`` (template_refused).
    """
    if read_json(folder / "config.json").get("model_type") in ENCODERS:
        return EncoderTokenizer(folder)
    text = template_text(folder, read_json(folder / "tokenizer_config.json"))
    if text is not None:
        try_once(text, folder.absolute().parent / TRIED)
    return FolderChatTokenizer(folder, reasoning)
