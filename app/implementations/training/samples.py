"""What the model in training answers to fixed prompts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from app.core.entities.datasets import Conversation, TokenizedRow
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import ChatTokenizer
from app.core.services.data.encoding import encode_prompt
from app.implementations.training.batches import pack
from app.utils.files import write_whole

VALIDATION_PROMPTS = 2
LONGEST_PROMPT = 256  # tokens of one that is taken from the validation rows
TEXT_TOKENS = 16  # that the model is given of a text


@dataclass(frozen=True, slots=True)
class Prompt:
    text: str
    ids: Sequence[int]


def choose_prompts(
    config: TrainingConfig, tokenizer: ChatTokenizer, validation: Sequence[Conversation]
) -> list[Prompt]:
    """The config's; else the first short questions of the validation rows, or the beginnings of their texts."""
    if config.sample_prompts is not None:
        return [Prompt(text, encode_prompt(text, tokenizer, config)) for text in config.sample_prompts]
    prompts = (_prompt(conversation, tokenizer, config) for conversation in validation)
    return list(
        islice((prompt for prompt in prompts if 0 < len(prompt.ids) <= LONGEST_PROMPT), VALIDATION_PROMPTS)
    )


def _prompt(conversation: Conversation, tokenizer: ChatTokenizer, config: TrainingConfig) -> Prompt:
    """All of a conversation before its last answer, or the first words of a text."""
    if conversation.text is not None:
        ids = encode_prompt(conversation.text, tokenizer, config)[:TEXT_TOKENS]
        return Prompt(tokenizer.decode(ids), ids)
    before = conversation.messages[:-1]
    return Prompt(before[-1]["content"], tokenizer.encode_prompt(before)) if before else Prompt("", ())


class Sampler:
    """Answers the prompts with the model as it stands. ``model`` is what the objective trains."""

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Prompt],
        tokenizer: ChatTokenizer,
        max_tokens: int,
        device: torch.device,
    ) -> None:
        self._model = model
        self._prompts = prompts
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._device = device

    @property
    def most_tokens(self) -> int:
        """That ``answers`` reads where no answer ends before its time: each new one by reading all anew."""
        prompts = sum(len(prompt.ids) for prompt in self._prompts)
        return self._max_tokens * prompts + len(self._prompts) * self._max_tokens * (self._max_tokens - 1) // 2

    def answers(self) -> list[tuple[str, str]]:
        """(prompt, answer) pairs. Draws nothing from the random state, and leaves the model in evaluation mode."""
        self._model.eval()
        made = greedy(
            self._model,
            [prompt.ids for prompt in self._prompts],
            self._tokenizer.stop_token_ids,
            self._max_tokens,
            self._device,
        )
        return [
            (prompt.text, self._tokenizer.decode(ids)) for prompt, ids in zip(self._prompts, made, strict=True)
        ]


@torch.no_grad()
def greedy(
    model: Any,
    prompts: Sequence[Sequence[int]],
    stop_token_ids: Sequence[int],
    max_tokens: int,
    device: torch.device,
) -> list[list[int]]:
    """The likeliest tokens after each prompt, without the stop token.

    All prompts are packed into one batch and computed anew for each token: the path of training, which has no
    cache, is the one that is watched.
    """
    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    made: list[list[int]] = [[] for _ in prompts]
    unfinished = list(range(len(prompts)))
    for _ in range(max_tokens):
        if not unfinished:
            break
        sequences = [[*prompts[place], *made[place]] for place in unfinished]
        batch = pack([TokenizedRow(0, ids, ids) for ids in sequences]).to(device)
        logits = causal_lm(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            segments=batch.segments,
            use_cache=False,
            logits_to_keep=torch.tensor([end - 1 for _, end in batch.segments], device=device),
        ).logits[0]
        chosen = logits.argmax(-1).tolist()
        for place, token in zip(unfinished, chosen, strict=True):
            if token not in stop_token_ids:
                made[place].append(token)
        unfinished = [
            place for place, token in zip(unfinished, chosen, strict=True) if token not in stop_token_ids
        ]
    return made


class SampleFile:
    """``samples.jsonl``: a line an answer. It appears whole, by rename."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[Mapping[str, Any]] | None = None

    def add(self, step: int, answers: Sequence[tuple[str, str]], since: int) -> None:
        """Of what lies there, the answers before step ``since`` stay, with which this attempt began.

        Raises ``OSError``, and ``ValueError`` for a file that is not ours.
        """
        if self._lines is None:
            old = self._path.read_text("utf-8").splitlines() if self._path.is_file() else []
            self._lines = [line for line in map(json.loads, old) if line["step"] < since]
        self._lines += [{"step": step, "prompt": prompt, "answer": answer} for prompt, answer in answers]
        write_whole(self._path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self._lines))
