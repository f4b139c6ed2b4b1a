"""More training rows from those that there are: the question changes, what the assistant says never does."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from app.core.entities.data_pipeline import AugmentationOptions
from app.core.entities.datasets import Conversation, Message
from app.core.entities.recording import Recorder
from app.core.interfaces.components import DataProcessor, RowProgress
from app.core.processors.cleaning import with_texts
from app.implementations.data.languages import language_finder

# How people put a question into a sentence. A language that is not here is not rephrased.
FRAMES: Mapping[str, Sequence[str]] = {
    "en": (
        "Hi, {}", "Hello! {} Thanks in advance.", "Quick question: {}", "{} Thank you!", "Could you help me? {}",
        "I would like to know: {}", "Sorry to bother you. {}", "{} I could not find it on the website.",
    ),
    "de": (
        "Hallo, {}", "Guten Tag! {} Vielen Dank im Voraus.", "Kurze Frage: {}", "{} Danke!",
        "Können Sie mir helfen? {}", "Ich wüsste gern: {}", "Entschuldigen Sie die Störung. {}",
    ),
    "fr": (
        "Bonjour, {}", "Bonjour ! {} Merci d'avance.", "Petite question : {}", "{} Merci !",
        "Pouvez-vous m'aider ? {}", "Je voudrais savoir : {}", "Excusez-moi de vous déranger. {}",
    ),
    "es": (
        "Hola, {}", "¡Buenos días! {} Gracias de antemano.", "Una pregunta rápida: {}", "{} ¡Gracias!",
        "¿Me puede ayudar? {}", "Quisiera saber: {}", "Perdone la molestia. {}",
    ),
    "zh": (
        "你好，{}", "您好！{}谢谢。", "请问，{}", "{}谢谢！", "想咨询一下：{}", "不好意思打扰了，{}",
        "我在网站上没找到。{}",
    ),
}  # fmt: skip
# What lies beside a key on a keyboard (QWERTY).
_NEIGHBOURS = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "j": "hk",
    "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "wa", "r": "et", "s": "ad", "t": "ry",
    "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "x",
}  # fmt: skip
# Words that may be mistyped: no name, number, address or code, whose letters matter to the answer.
_PLAIN_WORD = re.compile(r"(?<![\w@./\\:#-])[a-z]{4,}(?![\w@/\\:#-]|\.\w)")
_CODE = re.compile(r"`|://|^ {4}", re.MULTILINE)
_WORDS_A_TYPO = 6


@dataclass(frozen=True, slots=True)
class _Surroundings:
    options: AugmentationOptions
    exchanges: Sequence[Conversation]  # single ones, whose answers are right wherever they stand
    language: Callable[[str], str | None] | None  # None where no augmenter asks


class AugmentRows(DataProcessor):
    """Adds those made of the training rows after all others, numbered on. Each is seeded by (seed, row, name).

    ``extra`` has ``augmented``, the augmenter's name, and ``of``, the number of the row that it was made of.
    """

    after: ClassVar = {"split": "makes training rows"}

    def process(
        self, rows: Sequence[Conversation], record: Recorder, on_progress: RowProgress
    ) -> Sequence[Conversation]:
        options, seed = self.config.augmentation, self.config.seed
        training = [row for row in rows if row.split == "train" and row.messages]
        around = _Surroundings(
            options,
            exchanges=[row for row in training if [m["role"] for m in row.messages] == ["user", "assistant"]],
            language=language_finder() if "rephrase" in options.augmenters else None,
        )
        number = max((row.row for row in rows), default=0)
        made = []
        for name in options.augmenters:
            for row in training:
                rng = random.Random(f"{seed}:{row.row}:{name}")  # noqa: S311 # nosec B311 # no secret
                if rng.random() >= options.share:
                    continue
                new = _AUGMENTERS[name](row, rng, around)
                if new is not None:
                    number += 1
                    new = replace(new, row=number, extra={**row.extra, "augmented": name, "of": row.row})
                    record.make(new, name)
                    made.append(new)
        return [*rows, *made]


def _rephrase(row: Conversation, rng: random.Random, around: _Surroundings) -> Conversation | None:
    """The last question inside a frame of its language."""
    place, question = _last_question(row)
    assert around.language is not None
    frames = FRAMES.get(around.language(question) or "")
    if frames is None:
        return None
    return _with_question(row, place, rng.choice(frames).format(question.strip()))


def _typos(row: Conversation, rng: random.Random, _: _Surroundings) -> Conversation | None:
    """The last question as if typed in haste: a wrong key in a word of six, no capitals, no mark at its end."""
    place, question = _last_question(row)
    if _CODE.search(question):
        return None
    words = list(_PLAIN_WORD.finditer(question))
    wrong = rng.sample(words, -(-len(words) // _WORDS_A_TYPO))
    typed = question
    for word in sorted(wrong, key=lambda match: -match.start()):
        typed = typed[: word.start()] + _mistyped(word[0], rng) + typed[word.end() :]
    if rng.random() < 0.5 and typed[1:2].islower():
        typed = typed[:1].lower() + typed[1:]
    if rng.random() < 0.5 or typed == question:
        typed = typed.rstrip("?!. 。？！")
    return _with_question(row, place, typed) if typed.strip() and typed != question else None


def _system_prompt(row: Conversation, rng: random.Random, around: _Surroundings) -> Conversation | None:
    """A row without a system message gets one; what another says may bear on its answer."""
    if row.messages[0]["role"] == "system":
        return None
    system: Message = {"role": "system", "content": rng.choice(around.options.system_prompts)}
    return replace(row, messages=[system, *row.messages])


def _later_turn(row: Conversation, rng: random.Random, around: _Surroundings) -> Conversation | None:
    """The exchange of another row comes before: its answer is right as well."""
    if row.messages[0]["role"] == "system" or len(around.exchanges) < 2:
        return None
    other = rng.choice(around.exchanges)
    if other.messages[0]["content"] == row.messages[0]["content"]:
        return None
    return replace(row, messages=[*other.messages, *row.messages])


_AUGMENTERS: Mapping[str, Callable[[Conversation, random.Random, _Surroundings], Conversation | None]] = {
    "rephrase": _rephrase,
    "typos": _typos,
    "system_prompt": _system_prompt,
    "later_turn": _later_turn,
}


def _mistyped(word: str, rng: random.Random) -> str:
    """Not the first letter, which people get right and readers go by."""
    place = rng.randrange(1, len(word) - 1)
    here, after = word[place], word[place + 1]
    wrong = rng.choice((after + here, after, here + here + after, rng.choice(_NEIGHBOURS[here]) + after))
    return word[:place] + wrong + word[place + 2 :]


def _last_question(row: Conversation) -> tuple[int, str]:
    places = (place for place in range(len(row.messages) - 1, -1, -1) if row.messages[place]["role"] == "user")
    place = next(places)
    return place, row.messages[place]["content"]


def _with_question(row: Conversation, place: int, question: str) -> Conversation:
    return with_texts(row, {f"messages[{place}].content": question})
