"""Plain text to token ids, with what it spells kept apart from what the tokenizer means."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Encoding, Tokenizer
from tokenizers.decoders import DecodeStream

from app.core.entities.datasets import IGNORED, TokenizedRow
from app.core.errors import Invalid, Unavailable


def read_tokenizer(folder: Path) -> Tokenizer:
    """``Unavailable`` (tokenizer_unreadable) for a damaged folder. Not to be changed: others may have it too."""
    file = folder / "tokenizer.json"
    try:
        state = file.stat()
        return _parsed(file.absolute(), (state.st_ino, state.st_mtime_ns, state.st_size))
    except Exception:  # noqa: BLE001  (tokenizers raises nothing narrower)
        raise unreadable("tokenizer.json") from None


@lru_cache(maxsize=1)  # 50 ms at a job's start, which a spare trainer has spent before
def _parsed(file: Path, state: tuple[int, ...]) -> Tokenizer:
    del state  # another file's is another entry
    return Tokenizer.from_file(str(file))


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


def encode_plain(
    tokenizer: Tokenizer, control: re.Pattern[str], text: str, max_length: int | None
) -> TokenizedRow:
    """See ``ChatTokenizer.encode_plain``. The text is cut inside each control token, so that none comes of it."""
    cuts = [0, *(found.start() + 1 for found in control.finditer(text)), len(text)]
    parts = [encode_part(tokenizer, text[start:end]) for start, end in pairwise(cuts)]
    whole = Encoding.merge(parts)
    lost = 0
    if max_length is not None:
        room = max_length - tokenizer.num_special_tokens_to_add(False)
        lost = max(0, len(whole.ids) - room)
        whole.truncate(room)
    ids = tokenizer.post_process(whole).ids
    return TokenizedRow(0, ids, [IGNORED] * len(ids), truncated=lost)


def token_texts(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """See ``ChatTokenizer.token_texts``."""
    stream = DecodeStream(skip_special_tokens=False)
    texts = [stream.step(tokenizer, token) or "" for token in ids]
    if ids and not texts[-1]:  # bytes of a character that does not come to its end
        texts[-1] = tokenizer.decode(list(ids), skip_special_tokens=False)[sum(map(len, texts)) :]
    return texts


def fingerprint_of(folder: Path) -> str:
    """sha256 of all that turns a conversation into token ids."""
    digest = hashlib.sha256()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        file = folder / name
        content = file.read_bytes() if file.is_file() else b""
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


class Continuing(NamedTuple):
    """Tokenizers for a text that goes on from another, so that both come to what the whole would."""

    after_text: Tokenizer
    after_added: Tokenizer  # where the other ends with an added token


def for_continuing(tokenizer: Tokenizer) -> Continuing:
    """SentencePiece's tokenizers write a space before what they take for a beginning; most others write none."""
    parts = [part for part in (tokenizer.normalizer, tokenizer.pre_tokenizer) if part is not None]
    state = b"".join(part.__getstate__() for part in parts)
    if b'"Prepend"' not in state and b'"prepend_scheme"' not in state:
        return Continuing(tokenizer, tokenizer)
    whole = json.loads(tokenizer.to_str())
    for name in ("normalizer", "pre_tokenizer"):
        whole[name] = _without_prefix(whole[name])
    bare = Tokenizer.from_str(json.dumps(whole))
    # Some write it at the very beginning only, others after each added token too.
    return Continuing(bare, bare if b'"first"' in state else tokenizer)


def _without_prefix(part: Any) -> Any:
    """``part`` is a normalizer or a pre-tokenizer as tokenizer.json writes it."""
    if not isinstance(part, dict):
        return part
    if part.get("type") == "Prepend":
        return None
    if part.get("type") == "Metaspace":
        return {**part, "prepend_scheme": "never"}
    for name in ("normalizers", "pretokenizers"):
        if name in part:
            return {**part, name: [kept for inner in part[name] if (kept := _without_prefix(inner)) is not None]}
    return part
