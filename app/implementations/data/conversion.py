"""Rows of one file to conversations: names of columns, shapes, splits, and every fault with its row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from app.core.entities.datasets import Conversation, DataLimits
from app.core.entities.recording import Recorder
from app.core.errors import Invalid
from app.core.factories import DATA_FORMATS
from app.core.interfaces.components import DataFormat, DataProcessor, RowProgress
from app.implementations.data.json_rows import NumberedRow
from app.implementations.data.validation import MAX_FAULTS, Faults, check_row_shape, check_split

_SPLIT = "split"
_KNOWN = (
    "messages, or conversations, or instruction and output, or prompt and completion, or question and answer, "
    "or prompt, chosen and rejected, or input, preferred_output and non_preferred_output, "
    "or text, or text and label. Where columns have other names, map them"
)


class Conversion:
    """Of one file. ``columns``: their name → our name. What is wrong is added to ``faults``."""

    def __init__(self, formats: Sequence[DataFormat], limits: DataLimits, columns: Mapping[str, str]) -> None:
        self.columns = columns
        self.faults = Faults()
        self.format: str | None = None  # of the first sound row
        self.sound = 0  # rows
        self._formats = list(formats)
        self._own = {form.name: form.columns | {_SPLIT} for form in formats}
        self._limits = limits
        self._unmet = set(columns)  # that no row had yet
        self._splits = _Splits(self.faults)
        _check_columns(columns, formats, self.faults)

    def convert(self, rows: Iterable[NumberedRow]) -> Iterator[Conversation]:
        """The sound ones, as they are read. Afterwards ``faults`` has what can be told at the end only.

        With a faulty mapping of columns nothing is read.
        """
        if self.faults:
            return
        for number, row in rows:
            if found := self._row(number, row):
                self.sound += 1
                yield found
            if self.faults.hopeless:
                return
        self.sound -= self._splits.finish()
        for name in sorted(self._unmet) if self.sound else ():
            self.faults.add(f"columns.{name}", "unknown_column", "names a column that no row has")

    def _row(self, number: int, row: Any) -> Conversation | None:
        local = Faults()
        found: Conversation | None = None
        if check_row_shape(row, self._limits.depth, local):
            if self.columns:
                row = self._rename(row, local)
            check_split(row.get(_SPLIT), local)
            found = self._convert(number, row, local)
            if not self._splits.meet(number, row.get(_SPLIT), is_sound=not local):
                found = None
        if not local:
            return found
        for fault in local.listed(""):
            where = f"row {number}: {fault.where}" if fault.where else f"row {number}"
            self.faults.add(where, fault.code, fault.message)
        return None

    def _rename(self, row: Mapping[str, Any], faults: Faults) -> Mapping[str, Any]:
        self._unmet.difference_update(row)
        named = {self.columns.get(name, name): value for name, value in row.items()}
        if len(named) < len(row):
            ours = Counter(self.columns.get(name, name) for name in row)
            for name in (name for name, count in ours.items() if count > 1):
                faults.add(name, "duplicate_column", "is there, and another column is mapped to it: leave one out")
        return named

    def _convert(self, number: int, row: Mapping[str, Any], faults: Faults) -> Conversation | None:
        form = self._form(row)
        if form is None:
            faults.add("", "unknown_format", f"has none of the known shapes: {_KNOWN}")
            return None
        try:
            found = form.convert(row)
        except Invalid as error:
            for fault in error.faults:
                faults.take(fault)
            return None
        if len(found.messages) > self._limits.turns:
            message = f"has {len(found.messages):,} messages, at most {self._limits.turns:,} are taken"
            faults.add("", "too_many_turns", f"{message} (data_max_turns): split the conversation")
        own = self._own[form.name]
        extra = {key: value for key, value in row.items() if key not in own}
        self.format = self.format or (None if faults else form.name)
        # Not dataclasses.replace, which takes twice the time, a million times.
        return Conversation(
            number, found.messages, row.get(_SPLIT), extra, found.rejected, found.text, found.label
        )

    def _form(self, row: Mapping[str, Any]) -> DataFormat | None:
        for place, form in enumerate(self._formats):
            if form.recognises(row):
                if place:  # the next row is most likely the same
                    self._formats.insert(0, self._formats.pop(place))
                return form
        return None


class ConvertRows(DataProcessor):
    """Converts rows of every known shape, numbered from 1; those that a reader has converted before stay."""

    def process(self, rows: Sequence[Any], record: Recorder, on_progress: RowProgress) -> Sequence[Conversation]:
        """``Invalid`` (invalid_data) with every fault of the rows."""
        if all(isinstance(row, Conversation) for row in rows):
            return rows
        formats = [DATA_FORMATS.create(name) for name in DATA_FORMATS.names()]
        conversion = Conversion(formats, DataLimits(), {})
        converted = list(conversion.convert(enumerate(rows, start=1)))
        conversion.faults.raise_any("the rows have faults", "invalid_data", "rows")
        return converted


class _Splits:
    """All rows name the split they belong to, or none does. Which of the two a file is, its first split tells."""

    def __init__(self, faults: Faults) -> None:
        self.are_given = False
        self._faults = faults
        self._some_train = False
        self._late: list[int] = []  # the first rows without one, before any had one
        self._more_late = 0
        self._sound_late = 0

    def meet(self, number: int, split: Any, *, is_sound: bool) -> bool:
        """Whether this row has one, or needs none as far as is known."""
        self._some_train = self._some_train or split == "train"
        if split is not None:
            if not self.are_given:
                self.are_given = True
                self._tell_late()
        elif self.are_given:
            self._missing(number)
            return False
        else:
            self._sound_late += is_sound
            if len(self._late) < MAX_FAULTS:
                self._late.append(number)
            else:
                self._more_late += 1
        return True

    def finish(self) -> int:
        """How many rows were taken for sound before it was known that each must name a split."""
        if self.are_given and not self._faults and not self._some_train:
            self._faults.add("file", "no_training_rows", "has no row whose split is train")
        return self._sound_late if self.are_given else 0

    def _tell_late(self) -> None:
        for number in self._late:
            self._missing(number)
        self._faults.count_beyond(self._more_late)

    def _missing(self, number: int) -> None:
        message = "is missing, and other rows have one: give it to all rows or to none"
        self._faults.add(f"row {number}: {_SPLIT}", "missing", message)


def _check_columns(columns: Mapping[str, str], formats: Sequence[DataFormat], faults: Faults) -> None:
    """Each of our names once, and none that no format reads."""
    known = sorted({_SPLIT}.union(*(form.columns for form in formats)))
    for theirs, ours in columns.items():
        where = f"columns.{theirs}"
        if ours not in known:
            faults.add(where, "unknown_column", f"is mapped to {ours!r}; known: {', '.join(known)}")
        elif list(columns.values()).count(ours) > 1:
            faults.add(where, "duplicate_column", f"is mapped to {ours}, and so is another: map one")
