"""Scores a base model or a published version on held-out questions."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from app.core.entities.datasets import Conversation
from app.core.entities.evaluation import EvaluationReport, ScoredAnswer
from app.core.entities.identity import DEFAULT_PROJECT_ID
from app.core.errors import Invalid
from app.core.interfaces.components import ChatTokenizer, TextGenerator
from app.core.interfaces.services.models import Evaluation
from app.core.interfaces.stores import Stores
from app.core.services.models.resolver import ModelResolver, Subject
from app.utils.files import write_whole

MAX_NEW_TOKENS = 48  # an answer that states a fact is a sentence

FactMatcher = Callable[[str, Sequence[Sequence[str]]], bool]


class EvaluationService(Evaluation):
    """``generators`` builds a TextGenerator: that is when torch is loaded, in the calling process."""

    def __init__(
        self,
        resolver: ModelResolver,
        stores: Stores,
        generators: Callable[..., TextGenerator],
        states_fact: FactMatcher,
        results_dir: Path,
        threads: int,
    ) -> None:
        self._resolver = resolver
        self._stores = stores
        self._generators = generators
        self._states_fact = states_fact
        self._folder = results_dir / "evaluations"
        self._threads = threads

    def evaluate(
        self,
        model: str,
        dataset_path: str,
        *,
        split: str = "test",
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> EvaluationReport:
        check = self._stores.datasets.check(dataset_path, trusted=True)
        if check.faults:
            raise Invalid(f"{dataset_path} has faults", code="invalid_data", faults=check.faults)
        subject = self._resolver.subject(DEFAULT_PROJECT_ID, model)
        place = self._folder / f"{subject.key}-{check.digest[:12]}-{split}.json"
        if place.is_file():
            return _read(place)
        prepared = self._stores.datasets.prepare(dataset_path, check.digest, subject.seed, trusted=True)
        rows = scorable(self._stores.datasets.rows(prepared, split), split)
        on_progress(0, len(rows))
        report = EvaluationReport(subject.name, check.digest, split, self._ask(subject, rows, on_progress))
        self._folder.mkdir(parents=True, exist_ok=True)
        write_whole(place, json.dumps(asdict(report), ensure_ascii=False, indent=1))
        return report

    def answers(self, model: str, questions: Sequence[str], *, max_tokens: int) -> Sequence[str]:
        subject = self._resolver.subject(DEFAULT_PROJECT_ID, model)
        prompts = [subject.tokenizer.encode_prompt([{"role": "user", "content": text}]) for text in questions]
        found = dict(self._generate(subject, prompts, max_tokens))
        return [found[place] for place in range(len(questions))]

    def _ask(
        self, subject: Subject, rows: Sequence[Conversation], on_progress: Callable[[int, int], None]
    ) -> Sequence[ScoredAnswer]:
        ask = partial(self._generate, subject)
        return score_answers(rows, subject.tokenizer, ask, self._states_fact, on_progress)

    def _generate(
        self, subject: Subject, prompts: Sequence[Sequence[int]], max_tokens: int
    ) -> Iterator[tuple[int, str]]:
        generator = self._generators(
            base_folder=subject.model_folder(),
            adapter_folder=subject.adapter_folder,
            stop_token_ids=subject.tokenizer.stop_token_ids,
            threads=self._threads,
        )
        yield from answer_texts(generator, subject.tokenizer, prompts, max_tokens)


def scorable(rows: Iterable[Conversation], split: str) -> Sequence[Conversation]:
    """Return the conversations whose answers say which facts they state. ``Invalid`` (nothing_to_score)."""
    found = [row for row in rows if row.messages and row.extra.get("keys")]
    if not found:
        raise Invalid(f"no row of the split {split!r} has keys to be scored by", code="nothing_to_score")
    return found


def answer_texts(
    generator: TextGenerator, tokenizer: ChatTokenizer, prompts: Sequence[Sequence[int]], max_tokens: int
) -> Iterator[tuple[int, str]]:
    """Generate; yield the place of a prompt and its answer without the thoughts, as they are done."""
    for place, ids in generator.generate(prompts, max_tokens):
        yield place, tokenizer.split_reasoning(tokenizer.decode(ids))[1]


def score_answers(
    rows: Sequence[Conversation],
    tokenizer: ChatTokenizer,
    ask: Callable[[Sequence[Sequence[int]], int], Iterable[tuple[int, str]]],
    states_fact: FactMatcher,
    on_progress: Callable[[int, int], None],
) -> Sequence[ScoredAnswer]:
    """Ask the last question of each row, and tell which answers state its facts, in the order of the rows."""
    prompts = [tokenizer.encode_prompt(row.messages[:-1]) for row in rows]
    scored: dict[int, ScoredAnswer] = {}
    for place, text in ask(prompts, MAX_NEW_TOKENS):
        row = rows[place]
        scored[place] = ScoredAnswer(
            row=row.row,
            group=str(row.extra.get("language", "all")),
            category=str(row.extra.get("category", "all")),
            question=row.messages[-2]["content"],
            expected=row.messages[-1]["content"],
            answer=text,
            correct=states_fact(text, row.extra["keys"]),
        )
        on_progress(len(scored), len(rows))
    return [scored[place] for place in range(len(rows))]


def _read(place: Path) -> EvaluationReport:
    raw: Mapping[str, Any] = json.loads(place.read_text("utf-8"))
    return EvaluationReport(**{**raw, "answers": [ScoredAnswer(**answer) for answer in raw["answers"]]})
