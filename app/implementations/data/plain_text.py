"""Plain text to token ids, with what it spells kept apart from what the tokenizer means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from app.core.entities.datasets import IGNORED, TokenizedRow
from app.core.errors import Invalid, Unavailable


def read_tokenizer(folder: Path) -> Tokenizer:
    """``Unavailable`` (tokenizer_unreadable) for a damaged folder."""
    try:
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception:  # noqa: BLE001  (tokenizers raises nothing narrower)
        raise unreadable("tokenizer.json") from None


def unreadable(name: str) -> Unavailable:
    return Unavailable(f"the model's {name} cannot be read: pull the model anew", code="tokenizer_unreadable")


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Finds the longest first; of no texts, nothing."""
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def encode_part(tokenizer: Tokenizer, text: str) -> Encoding:
    """Without special tokens of the tokenizer's own; ``Invalid`` for what is not Unicode."""
    try:
        return tokenizer.encode(text, add_special_tokens=False)
    except TypeError:  # what tokenizers says of a lone surrogate
        raise Invalid("the text is not valid Unicode", code="invalid_text") from None


def encode_plain(tokenizer: Tokenizer, control: re.Pattern[str], text: str, max_length: int) -> TokenizedRow:
    """See ``ChatTokenizer.encode_plain``. The text is cut inside each control token, so that none comes of it."""
    cuts = [0, *(found.start() + 1 for found in control.finditer(text)), len(text)]
    parts = [encode_part(tokenizer, text[start:end]) for start, end in pairwise(cuts)]
    whole = Encoding.merge(parts)
    room = max_length - tokenizer.num_special_tokens_to_add(False)
    lost = max(0, len(whole.ids) - room)
    whole.truncate(room)
    ids = tokenizer.post_process(whole).ids
    return TokenizedRow(0, ids, [IGNORED] * len(ids), truncated=lost)
