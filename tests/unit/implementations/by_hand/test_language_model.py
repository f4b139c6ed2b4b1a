"""The model by hand as the lab has it: files in, tokens and losses out."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from app.core.entities.datasets import IGNORED, TokenizedRow
from app.core.entities.inference import SamplingOptions
from app.implementations.by_hand.language_model import ModelByHand
from tests.serving_models import CONTEXT, write_adapter, write_base

PROMPT = [5, 17, 300, 42]
ROW = TokenizedRow(1, [*PROMPT, 7, 99, 2], [IGNORED] * 4 + [7, 99, 2])
GREEDY, WIDE = SamplingOptions(20), SamplingOptions(20, temperature=1.0, top_k=50, top_p=0.9)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("by_hand")
    write_base(folder / "base")
    write_adapter(folder / "base", folder / "adapter", seed=1)
    return folder


@pytest.fixture
def load(place: Path) -> Callable[..., ModelByHand]:
    def make(adapted: bool = False, seed: int | None = 0, stops: tuple[int, ...] = ()) -> ModelByHand:
        return ModelByHand(place / "base", place / "adapter" if adapted else None, stops, seed, threads=1)

    return make


@pytest.mark.parametrize("adapted", [False, True])
def test_tokens_and_loss_are_transformers(load: Callable[..., ModelByHand], place: Path, adapted: bool) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(place / "base")
    if adapted:
        theirs = PeftModel.from_pretrained(theirs, str(place / "adapter"))
    expected = theirs.generate(
        input_ids=torch.tensor([PROMPT]), max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    ours = load(adapted)
    assert ours.context == CONTEXT
    assert list(ours.tokens(PROMPT, GREEDY)) == expected[0, len(PROMPT) :].tolist()
    loss = theirs(input_ids=torch.tensor([ROW.input_ids]), labels=torch.tensor([ROW.labels])).loss.item()
    assert ours.loss(ROW) == pytest.approx(3 * loss, rel=1e-5)


def test_a_stop_ends_it(load: Callable[..., ModelByHand]) -> None:
    whole = list(load().tokens(PROMPT, GREEDY))
    assert list(load(stops=(whole[5],)).tokens(PROMPT, GREEDY)) == whole[: whole.index(whole[5])]


def test_a_seed_repeats_a_whole_conversation(load: Callable[..., ModelByHand]) -> None:
    def two_answers(seed: int | None) -> list[list[int]]:
        model = load(seed=seed)
        return [list(model.tokens(PROMPT, WIDE)) for _ in range(2)]

    first = two_answers(1)
    assert first[0] != first[1]
    assert two_answers(1) == first
    assert two_answers(2) != first
    assert two_answers(None) != two_answers(None)
