"""Token ids to text, piece by piece, never splitting a character."""

from collections.abc import Iterable

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class StreamDetokenizer:
    """The pieces, joined, are what the tokenizer makes of all ids at once, special tokens left out.

    But for the end: a last character of which not all bytes came is left out, where the tokenizer puts U+FFFD.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._emitted = 0  # characters

    def push(self, ids: Iterable[int]) -> str:
        """What is now certain. A character whose bytes are not all there waits for the rest."""
        new = list(ids)
        self._ids += new
        text = "".join(self._stream.step(self._tokenizer, token) or "" for token in new)
        self._emitted += len(text)
        return text

    def finish(self) -> str:
        """What was held back, now that no more comes."""
        rest: str = self._tokenizer.decode(self._ids, skip_special_tokens=True)[self._emitted :]
        return rest.rstrip("\ufffd")
