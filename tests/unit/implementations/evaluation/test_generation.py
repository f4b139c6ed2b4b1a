import pytest
import torch
from transformers import AutoModelForCausalLM

from app.core.entities.models import BaseModelSpec
from app.implementations.evaluation.generation import BatchGenerator
from app.registries import BASE_MODEL_SOURCES

STOP = 7


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    BASE_MODEL_SOURCES.load("random")(BaseModelSpec("tiny", "random", "llama"), folder)
    return folder


def test_a_batch_answers_as_each_prompt_alone_does(base, monkeypatch):
    monkeypatch.setattr(
        "app.implementations.evaluation.generation.pick_precision", lambda wanted, device: torch.float32
    )
    generator = BatchGenerator(base, None, [STOP], threads=1, batch_size=3)
    torch.manual_seed(0)
    prompts = [torch.randint(20, 400, (length,)).tolist() for length in (3, 9, 5, 12, 4)]
    answers = dict(generator.generate(prompts, max_tokens=6))

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    assert sorted(answers) == [0, 1, 2, 3, 4]
    for place, prompt in enumerate(prompts):
        ids = list(prompt)
        with torch.no_grad():
            while len(ids) < len(prompt) + 6:
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
                if ids[-1] == STOP:
                    ids.pop()
                    break
        assert answers[place] == ids[len(prompt) :]


def test_an_answer_ends_before_the_stop(base):
    generator = BatchGenerator(base, None, [STOP, 9], threads=1)

    assert generator._until_stop([1, 2, 9, 3, 7]) == [1, 2]
    assert generator._until_stop([1, 2]) == [1, 2]
