"""What is legal in a dataset and yet suspicious, and what the dataset holds: each warning says how to mend it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from app.core.entities.data_pipeline import (
    CleaningOptions,
    DatasetReport,
    DataWarning,
    Inspection,
    PipelineConfig,
)
from app.core.entities.datasets import Conversation
from app.core.interfaces.components import RowProgress, unwatched
from app.core.processors.cleaning import clean_row, empty_warning, identity, is_empty, texts
from app.core.processors.splitting import label_of
from app.core.processors.watching import watched
from app.implementations.data.languages import language_finder
from app.implementations.data.near_duplicates import find_near_duplicates
from app.implementations.data.private_data import Finder, personal_data_finder, secret_finder
from app.utils.percentiles import percentiles

PERCENTILES = (50, 90, 95, 99, 100)
MAX_LISTED = 100  # warnings of one code; all are counted
_RARE = 0.01  # a language with fewer of the rows is a stray, not a mix
# What separates turns in other templates and in transcripts: two turns in one message.
_ROLE_MARK = re.compile(
    r"<\|im_(?:start|end)\|>|<\|(?:start|end)_header_id\|>|\[/?INST\]|<[|｜](?:User|Assistant)[|｜]>"
    r"|^(?:### (?:Human|Assistant|User|Instruction|Response)|Human|Assistant|User):",
    re.MULTILINE | re.IGNORECASE,
)

TokenCount = Callable[[Conversation], tuple[int, int]]  # tokens before truncation; supervised ones after it
Warn = Callable[[int | None, str, str], None]


class Warnings:
    """Keeps the first hundred of each code and counts all."""

    def __init__(self) -> None:
        self.kept: list[DataWarning] = []
        self.counts: Counter[str] = Counter()

    def add(self, row: int | None, code: str, message: str) -> None:
        self.counts[code] += 1
        if self.counts[code] <= MAX_LISTED:
            self.kept.append(DataWarning(row, code, message))


def inspect(
    rows: Sequence[Conversation],
    config: PipelineConfig,
    *,
    tokens: TokenCount | None = None,
    max_length: int = 1024,
    on_progress: RowProgress = unwatched,
) -> Inspection:
    """``tokens`` counts as a base model does; without one, lengths are in characters.

    ``on_progress`` is called for each slow check, every thousand rows.
    """
    options = config.inspection
    found = Warnings()
    rates: dict[str, float] = {}
    _warn_of_plain_things(rows, config.cleaning, found.add)
    lengths = [sum(len(text) for _, text in texts(row)) for row in rows]
    if tokens is not None:
        counted = watched("tokens", rows, len(rows), on_progress, rates)
        lengths = [_token_length(row, tokens, max_length, found.add) for row in counted]
    if options.near_duplicates:
        _warn_of_near_duplicates(rows, config, found.add, on_progress, rates)
    languages = _languages(rows, found.add, on_progress, rates) if options.languages else {}
    finders = [("secrets", "secret", secret_finder)] if options.secrets else []
    finders += [("personal_data", "personal_data", personal_data_finder)] if options.personal_data else []
    for name, code, finder in finders:
        find = finder()
        for row in watched(name, rows, len(rows), on_progress, rates):
            _warn_of_private(row, code, find, found.add)
    labels = Counter(label for row in rows if (label := label_of(row)) is not None)
    ratio = max(labels.values()) / min(labels.values()) if labels else None
    if ratio is not None and ratio > options.balanced_ratio:
        found.add(None, "label_imbalance", _imbalance(labels, ratio))
    report = DatasetReport(
        total_samples=len(rows),
        label_counts=_by_count(labels),
        imbalance_ratio=ratio,
        is_balanced=None if ratio is None else ratio <= options.balanced_ratio,
        unit="characters" if tokens is None else "tokens",
        lengths=percentiles(lengths, PERCENTILES),
        languages=languages,
        warning_counts=dict(sorted(found.counts.items())),
        rates=rates,
    )
    return Inspection(report, found.kept, lengths)


def _warn_of_plain_things(rows: Sequence[Conversation], cleaning: CleaningOptions, warn: Warn) -> None:
    """What a look at each row tells."""
    first: dict[bytes, int] = {}
    for row in rows:
        cleaned = clean_row(row, cleaning)
        earlier = first.setdefault(identity(cleaned), row.row)
        if is_empty(cleaned):
            empty = empty_warning(row)
            warn(empty.row, empty.code, empty.message)
        elif earlier != row.row:
            warn(row.row, "duplicate", f"is equal to row {earlier} once both are clean: the step clean drops it")
        for code, message in _oddities(row):
            warn(row.row, code, message)


def _oddities(row: Conversation) -> Iterator[tuple[str, str]]:
    said = [(message["role"], " ".join(message["content"].split()).casefold()) for message in row.messages]
    for (role, asked), (_, answered) in pairwise(said):
        if role == "user" and asked == answered:
            yield "answer_repeats_question", "the assistant says what the user said: write an answer"
    answers = [text for role, text in said if role == "assistant"]
    if len(set(answers)) < len(answers):
        yield "repeated_turn", "the assistant says the same twice: leave one of the two turns out"
    if any(_ROLE_MARK.search(message["content"]) for message in row.messages):
        yield "role_mark", "a message holds the mark of another turn: split it into a message for each turn"


def _token_length(row: Conversation, tokens: TokenCount, max_length: int, warn: Warn) -> int:
    length, supervised = tokens(row)
    if length > max_length:
        remedy = "raise max_length, or shorten or split the row"
        warn(row.row, "over_long", f"has {length:,} tokens and max_length is {max_length:,}: {remedy}")
    if supervised == 0:
        remedy = "raise max_length, or shorten what comes before the answer"
        warn(row.row, "no_supervised_token", f"none of its tokens would train: {remedy}")
    return length


def _warn_of_near_duplicates(
    rows: Sequence[Conversation],
    config: PipelineConfig,
    warn: Warn,
    on_progress: RowProgress,
    rates: dict[str, float],
) -> None:
    asked = ["\n".join(_asked(row)) for row in rows]
    found = find_near_duplicates(asked, config.near_duplicates, config.seed, on_progress, rates)
    for place, (other, similarity) in found.like.items():
        if identity(rows[place]) != identity(rows[other]):  # that would be a duplicate
            remedy = "leave one out, or set splitting.near_duplicates: keep_together"
            message = f"asks nearly what row {rows[other].row} asks (similarity {similarity:.2f}): {remedy}"
            warn(rows[place].row, "near_duplicate", message)


def _asked(row: Conversation) -> Sequence[str]:
    """All that its answers are given to."""
    said = [message["content"] for message in row.messages if message["role"] == "user"]
    return said if row.text is None else [row.text]


def _languages(
    rows: Sequence[Conversation], warn: Warn, on_progress: RowProgress, rates: dict[str, float]
) -> dict[str, int]:
    """Rows by the language of what the assistant says, else of their text."""
    language = language_finder()
    counts: Counter[str] = Counter()
    for row in watched("languages", rows, len(rows), on_progress, rates):
        if not row.messages:
            counts[language(row.text or "") or "unknown"] += 1
            continue
        asked, answered = (language(message["content"]) for message in row.messages[-2:])
        counts[answered or asked or "unknown"] += 1
        if asked and answered and asked != answered:
            message = (
                f"is asked in {asked} and answered in {answered}: intended only where the task is to translate"
            )
            warn(row.row, "mixed_languages", message)
    known = Counter({code: count for code, count in counts.items() if code != "unknown"})
    common = [code for code, count in known.most_common() if count >= _RARE * known.total()]
    if len(common) > 1:
        shares = ", ".join(f"{code} {known[code] / known.total():.0%}" for code in common)
        remedy = "evaluate each by itself, and add rows where one is to be answered better"
        warn(None, "mixed_languages", f"the rows are in {len(common)} languages, {shares}: {remedy}")
    return _by_count(counts)


def _warn_of_private(row: Conversation, code: str, find: Finder, warn: Warn) -> None:
    for where, text in texts(row):
        for kind, shown in find(text):
            remedy = (
                "remove it, and revoke it" if code == "secret" else "remove it, or put a made-up one in its place"
            )
            warn(row.row, code, f"{where} seems to hold: {kind} ({shown}): {remedy}")


def _imbalance(labels: Counter[str], ratio: float) -> str:
    (most, many), (least, few) = labels.most_common()[0], labels.most_common()[-1]
    remedy = "add rows of the rare label, or leave some of the common one out"
    return f"{most!r} has {many:,} rows and {least!r} {few:,}, {ratio:.1f} times fewer: {remedy}"


def _by_count(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
