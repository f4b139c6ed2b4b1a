"""Texts made clean, and rows that are empty or there twice left out.

What tells HTML from text takes 20 ms to import. It is imported where a row is cleaned, because every process that
reads a pipeline's config imports this module.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from app.core.entities.data_pipeline import CleaningOptions, DataWarning
from app.core.entities.datasets import Conversation, Message
from app.core.entities.recording import Recorder
from app.core.interfaces.components import DataProcessor, RowProgress

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff]")  # and byte order marks; not tab and line feed
_LINE_END = re.compile(r"\r\n?")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")


def clean_text(text: str, options: CleaningOptions) -> tuple[str, tuple[str, ...]]:
    """The clean text, and what was done to it. Cleaning it again changes nothing."""
    from app.core.processors.markup import is_html, without_html

    done = []

    def take(new: str, why: str) -> None:
        nonlocal text
        if new != text:
            text = new
            done.append(why)

    take(_spelled(text, options), "characters")
    if options.html and is_html(text):
        plain = _spelled(without_html(text), options)
        # What still is HTML without its tags showed some to its reader: such a text is left alone.
        take(text if is_html(plain) else plain, "html")
    if options.white_space:
        take(_tidy(text), "white_space")
    return text, tuple(done)


class CleanRows(DataProcessor):
    """Leaves out what is empty once it is clean, and what is equal to an earlier row in all that trains."""

    def process(
        self, rows: Sequence[Conversation], record: Recorder, on_progress: RowProgress
    ) -> Sequence[Conversation]:
        options = self.config.cleaning
        kept = []
        first: dict[bytes, int] = {}
        for row in rows:
            cleaned = clean_row(row, options, record)
            if is_empty(cleaned):
                record.drop(row, "empty_after_cleaning")
                record.warnings.append(empty_warning(row))
                continue
            if options.duplicates:
                earlier = first.setdefault(identity(cleaned), row.row)
                if earlier != row.row:
                    record.drop(row, "duplicate")
                    continue
            kept.append(cleaned)
        return kept


def clean_row(row: Conversation, options: CleaningOptions, record: Recorder | None = None) -> Conversation:
    """The same object where nothing changes. Where a text speaks of markup, the others are to show some."""
    from app.core.processors.markup import is_html, speaks_of_markup

    new: dict[str, str] = {}
    said = [text for _, text in texts(row)]
    if options.html and any(map(is_html, said)) and any(map(speaks_of_markup, said)):
        options = options.model_copy(update={"html": False})
    for where, text in texts(row):
        cleaned, done = clean_text(text, options)
        if done:
            new[where] = cleaned
            if record:
                record.change(row, where, text, cleaned, "+".join(done))
    return with_texts(row, new) if new else row


def is_empty(row: Conversation) -> bool:
    """Whether one of its texts says nothing: a question without an answer trains nothing good."""
    return any(not text.strip() for _, text in texts(row))


def empty_warning(row: Conversation) -> DataWarning:
    message = "a text is empty once it is cleaned: fill it or leave the row out"
    return DataWarning(row.row, "empty_after_cleaning", message)


def identity(row: Conversation) -> bytes:
    """Equal for rows that would train the same: extra columns do not count. Of 16 bytes, for a million of them."""
    said = [[message["role"], message["content"]] for message in row.messages]
    rejected = row.rejected and row.rejected["content"]
    written = json.dumps([said, rejected, row.text, row.label, row.split])
    return hashlib.blake2b(written.encode(), digest_size=16).digest()


def texts(row: Conversation) -> Iterator[tuple[str, str]]:
    """Each text with its place."""
    for place, message in enumerate(row.messages):
        yield f"messages[{place}].content", message["content"]
    if row.rejected is not None:
        yield "rejected.content", row.rejected["content"]
    if row.text is not None:
        yield "text", row.text


def with_texts(row: Conversation, new: Mapping[str, str]) -> Conversation:
    """``new`` by place, as ``texts`` names them."""
    messages: list[Message] = [
        {"role": message["role"], "content": new.get(f"messages[{place}].content", message["content"])}
        for place, message in enumerate(row.messages)
    ]
    rejected = row.rejected
    if rejected is not None and "rejected.content" in new:
        rejected = {"role": rejected["role"], "content": new["rejected.content"]}
    return replace(row, messages=messages, rejected=rejected, text=new.get("text", row.text))


def _spelled(text: str, options: CleaningOptions) -> str:
    """NFC, not NFKC, unless asked for: NFKC makes 2⁸ into 28, and code into other code."""
    if options.control_characters:
        text = _CONTROL.sub("", _LINE_END.sub("\n", text))
    if options.unicode == "none":
        return text
    return unicodedata.normalize(options.unicode, text)


def _tidy(text: str) -> str:
    """Every line of a code fence stays as it is."""
    lines: list[str] = []
    fence = ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence:
            lines.append(line)
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            continue
        if mark and "`" not in line[mark.end() :]:
            fence = mark[1]
        line = line.rstrip()
        if line or (lines and lines[-1]):
            lines.append(line)
    if not fence and lines and not lines[-1]:
        lines.pop()
    if lines and not _FENCE.match(lines[0]):
        lines[0] = lines[0].lstrip()
    return "\n".join(lines)
