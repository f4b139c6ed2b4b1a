"""The bytes of a raw file, a piece at a time, and what they say of its encoding."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from typing import BinaryIO

from app.core.errors import Fault
from app.core.interfaces.components import ByteProgress

_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_CHUNK = 1024 * 1024
_TELL_EVERY = 1000  # lines


class Unreadable(Exception):
    """A fault that ends the reading: what follows cannot be told apart."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class RawFile:
    """An open binary file, read once from its beginning."""

    def __init__(self, file: BinaryIO, progress: ByteProgress | None = None) -> None:
        self.file = file
        self.size = file.seek(0, os.SEEK_END)
        self._progress = progress
        file.seek(0)

    def tell_progress(self, done: int) -> None:
        if self._progress:
            self._progress(done, self.size)

    def lines(self, limit: int) -> Iterator[tuple[int, bytes | None]]:
        """Numbered from 1, without a byte order mark; None for one of more than ``limit`` bytes.

        ``Unreadable`` where the text is plainly in another encoding.
        """
        self._to_the_text()
        read, number = self.file.readline, 0
        while line := read(limit + 1):
            number += 1
            if len(line) > limit and not line.endswith(b"\n"):
                self._skip_line()
                yield number, None
            else:
                yield number, line
            if number % _TELL_EVERY == 0:
                self.tell_progress(self.file.tell())
        self.tell_progress(self.size)

    def chunks(self) -> Iterator[str]:
        """The text. ``Unreadable`` at the first byte that is not UTF-8."""
        self._to_the_text()
        decoder = codecs.getincrementaldecoder("utf-8")()
        while True:
            piece = self.file.read(_CHUNK)
            try:
                text = decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                line, column = self._place(self.file.tell() - len(error.object) + error.start)
                raise Unreadable(not_utf8(error, line, column)) from None
            self.tell_progress(self.file.tell())
            if not piece:
                return
            yield text

    def _to_the_text(self) -> None:
        """Past a byte order mark."""
        head = self.file.read(4)
        for mark, name in _OTHER_ENCODINGS.items():
            if head.startswith(mark):
                raise Unreadable(Fault("file", "encoding", f"is {name}: save it as UTF-8"))
        if b"\0" in head:
            message = "is not UTF-8 text (perhaps UTF-16): save it as UTF-8"
            raise Unreadable(Fault("file", "encoding", message))
        self.file.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)

    def _skip_line(self) -> None:
        while (rest := self.file.readline(_CHUNK)) and not rest.endswith(b"\n"):
            pass

    def _place(self, offset: int) -> tuple[int, int]:
        """Line and byte of an offset. It reads the file anew up to there, which only a faulty one has to bear."""
        self._to_the_text()
        line, column = 1, 1
        while (left := offset - self.file.tell()) > 0 and (piece := self.file.readline(min(left, _CHUNK))):
            line, column = (line + 1, 1) if piece.endswith(b"\n") else (line, column + len(piece))
        return line, column


def not_utf8(error: UnicodeDecodeError, line: int, column: int) -> Fault:
    message = f"the byte 0x{error.object[error.start]:02X} is not UTF-8: save the file as UTF-8"
    return Fault(f"line {line}, byte {column}", "encoding", message)


def row_too_large(number: int, limit: int) -> Fault:
    message = f"has more than {limit:,} bytes (data_max_row_bytes): shorten it, or split it into several rows"
    return Fault(f"row {number}", "row_too_large", message)


def too_many_rows(limit: int) -> Fault:
    return Fault("file", "too_many_rows", f"has more than {limit:,} rows (data_max_rows): split it")
