"""Chat rows to measure with: made up from a seed, of mixed length, the same bytes on every machine.

96 rows are about 16,600 tokens of SmolLM2's tokenizer and template, 37 to 565 a row, nearly half of them the
assistant's.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")
Row = dict[str, Any]

SHORTEST, LONGEST = 6, 490  # words of a conversation
MULTI_TURN = 0.3  # of the rows
ASSISTANT = 0.56  # of the words: the template's own system prompt is on the other side

_SUBJECTS = (
    *("the customer", "our team", "the driver", "a colleague", "the warehouse", "the manager", "the supplier"),
    *("the printer", "the invoice", "the parcel", "the account", "the engine", "the garden", "the station"),
    *("a visitor", "the student", "the doctor", "the river", "the kitchen", "the library", "the old bridge"),
)
_VERBS = (
    *("checks", "opens", "moves", "repairs", "orders", "returns", "measures", "explains", "follows", "prepares"),
    *("closes", "delivers", "collects", "replaces", "describes", "covers", "needs", "shows", "keeps", "finds"),
)
_OBJECTS = (
    *("the red box", "a new letter", "the monthly report", "an empty shelf", "the second door", "a small table"),
    *(
        "the wrong address",
        "two fresh samples",
        "the final price",
        "a quiet room",
        "the paper map",
        "some clean water",
    ),
    *("the broken switch", "every open question", "the winter schedule", "a longer cable", "the first page"),
    *(
        "an early train",
        "the spare key",
        "their own notes",
        "the blue jacket",
        "a simple answer",
        "the whole order",
    ),
)
_ENDINGS = (
    *("before noon", "in the morning", "without delay", "at the front desk", "after the meeting", "on Monday"),
    *("for the next week", "with great care", "near the harbour", "until it is ready", "because it was late"),
    *("as agreed last month", "under the stairs", "whenever it rains", "from the other side", "in plain words"),
)
_OPENINGS = (
    *("Please tell me whether", "Could you explain why", "I would like to know if", "Is it true that"),
    *("Do you remember when", "Somebody told me that", "How can I be sure that", "What happens after"),
)


def make_rows(count: int, seed: int) -> list[Row]:
    """``messages`` rows, from the shortest to the longest length in equal steps of a skewed curve, shuffled."""
    random = _Source(seed)
    rows = []
    for place in random.shuffled(range(count)):
        # The cube makes most rows short and a few long, as in a help desk's logs: the mean is near a quarter.
        share = (place + 0.5) / count
        rows.append(_row(random, round(SHORTEST + (LONGEST - SHORTEST) * share**3)))
    return rows


def make_equal_rows(count: int, asked: int, answered: int, seed: int) -> list[Row]:
    """Rows of one turn: ``asked`` words by the user, ``answered`` by the assistant."""
    random = _Source(seed)
    return [{"messages": _turn(random, asked, answered)} for _ in range(count)]


def read_rows(path: Path) -> list[Row]:
    """Of a JSON list whose objects have ``messages``; what else they have is left out."""
    return [{"messages": row["messages"]} for row in json.loads(path.read_text("utf-8"))]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    path.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


class _Source:
    """Draws by ``Random.random`` alone: the only method that Python promises to repeat in every version."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311 (measurements need repetition, not secrecy)

    def share(self) -> float:
        return self._random.random()

    def pick(self, choices: Sequence[T]) -> T:
        return choices[int(self.share() * len(choices))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        return [item for _, item in sorted((self.share(), item) for item in items)]


def _row(random: _Source, words: int) -> Row:
    turns = 2 + int(random.share() * 3) if words >= 80 and random.share() < MULTI_TURN else 1
    answered = round(words // turns * ASSISTANT)
    return {"messages": [m for _ in range(turns) for m in _turn(random, words // turns - answered, answered)]}


def _turn(random: _Source, asked: int, answered: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": _text(random, asked, asks=True)},
        {"role": "assistant", "content": _text(random, answered, asks=False)},
    ]


def _text(random: _Source, words: int, asks: bool) -> str:
    """Sentences, cut after ``words`` words."""
    text: list[str] = []
    while len(text) < words:
        opening = random.pick(_OPENINGS) if asks and not text else ""
        parts = (random.pick(_SUBJECTS), random.pick(_VERBS), random.pick(_OBJECTS), random.pick(_ENDINGS))
        sentence = " ".join((opening, *parts)).strip()
        text += f"{sentence[0].upper()}{sentence[1:]}{'?' if opening else '.'}".split()
    return " ".join(text[:words])
