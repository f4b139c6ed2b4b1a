import json

import pytest
import torch

from app.core.entities.datasets import Conversation
from app.core.entities.training_config import TrainingConfig
from app.implementations.training.samples import LONGEST_PROMPT, SampleFile, Sampler, choose_prompts, greedy

CPU = torch.device("cpu")
PROMPTS = [[1, 2, 3], [9], [4, 5, 6, 7, 8]]


class Words:
    """A token a character, from 10 on."""

    stop_token_ids = (0,)

    def encode_prompt(self, messages):
        return [2, *(10 + ord(letter) % 50 for message in messages for letter in message["content"]), 3]

    def encode_text(self, text):
        return [10 + ord(letter) % 50 for letter in text] + [0]

    def decode(self, ids):
        return f"<{len(ids)}>"


def conversation(row, *contents, text=None):
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": content} for place, content in enumerate(contents)]
    return Conversation(row, messages, text=text)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_says_what_generate_says(make_model, dtype):
    """One prompt at a time with a cache, by transformers; the pack must not mix the prompts."""
    packed, plain = make_model(dtype=dtype).eval(), make_model(attention="eager", dtype=dtype).eval()
    expected = []
    for prompt in PROMPTS:
        whole = plain.generate(
            torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        expected.append(whole[0, len(prompt) :].tolist())
    assert greedy(packed, PROMPTS, (), 8, CPU) == expected


def test_it_stops_at_a_stop_token_each_for_itself(make_model):
    model = make_model().eval()
    free = greedy(model, PROMPTS, (), 8, CPU)
    stop = free[0][2]
    stopped = greedy(model, PROMPTS, (stop,), 8, CPU)
    assert stopped == [ids[: ids.index(stop)] if stop in ids else ids for ids in free]
    assert len(stopped[0]) <= 2


def test_no_gradient_and_no_random_number_is_made(make_loop, listener):
    loop = make_loop(listener())
    prompts = choose_prompts(TrainingConfig(sample_prompts=["ab"]), Words(), [])
    before = torch.get_rng_state()
    ((text, answer),) = Sampler(loop.objective.model, prompts, Words(), 4, CPU).answers()
    assert text == "ab"
    assert answer.startswith("<")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in loop.wrapped.parameters())


@pytest.mark.parametrize("objective", ["sft", "dpo", "pretrain"])
def test_training_is_the_same_to_the_bit_with_samples(make_loop, listener, objective):
    """Dropout included, in the middle of an epoch and at its edge."""
    options = {"num_epochs": 2, "eval_steps": 2, "lora": {"lora_dropout": 0.2}, "objective": objective}
    plain, watched = listener(), listener()
    without = make_loop(plain, **options)
    without.run()
    loop = make_loop(watched, folder="watched", **options)
    assert loop.objective.generates
    prompts = choose_prompts(TrainingConfig(sample_prompts=["ab", "cde"]), Words(), [])
    sampler = Sampler(loop.objective.model, prompts, Words(), 4, CPU)
    answered = []
    loop.sample = lambda step: answered.append((step, sampler.answers()))
    loop.run()

    def losses(heard):
        return [(event.get("loss"), event.get("grad_norm")) for event in heard.steps]

    assert [step for step, _ in answered] == [2, 3, 4, 6]
    assert losses(watched) == losses(plain)
    assert [e["eval_loss"] for e in watched.evaluations] == [e["eval_loss"] for e in plain.evaluations]
    for name, master in without.optimizer.masters.items():
        assert torch.equal(loop.optimizer.masters[name], master)


def test_samples_are_taken_without_validation_rows_too(make_loop, listener):
    heard, steps = listener(), []
    loop = make_loop(heard, validation=0, num_epochs=2)
    loop.sample = steps.append
    loop.run()
    assert heard.evaluations == []
    assert steps == [3, 6]


def test_prompts_are_the_configs():
    chosen = choose_prompts(TrainingConfig(sample_prompts=["ab", "c"]), Words(), [conversation(1, "q", "a")])
    assert [(prompt.text, prompt.ids[0], len(prompt.ids)) for prompt in chosen] == [("ab", 2, 4), ("c", 2, 3)]
    assert choose_prompts(TrainingConfig(sample_prompts=[]), Words(), [conversation(1, "q", "a")]) == []


def test_prompts_are_else_the_first_short_questions_of_the_validation_rows():
    rows = [
        conversation(1, "x" * LONGEST_PROMPT, "a"),
        conversation(2, "first", "a", "second", "b"),
        conversation(3, "third", "a"),
        conversation(4, "fourth", "a"),
    ]
    chosen = choose_prompts(TrainingConfig(), Words(), rows)
    assert [prompt.text for prompt in chosen] == ["second", "third"]
    assert len(chosen[0].ids) == len("firstasecond") + 2  # what was said before is part of it
    assert choose_prompts(TrainingConfig(), Words(), []) == []


def test_a_text_is_gone_on_with():
    """Without the end-of-text token: there would be nothing to go on with."""
    config = TrainingConfig(objective="pretrain", sample_prompts=["abc"])
    ((given),) = choose_prompts(config, Words(), [])
    assert (given.text, len(given.ids), 0 in given.ids) == ("abc", 3, False)
    found = choose_prompts(TrainingConfig(objective="pretrain"), Words(), [conversation(1, text="a" * 90)])
    assert [(prompt.text, len(prompt.ids)) for prompt in found] == [("<16>", 16)]


def test_a_resumed_run_keeps_what_came_before_and_writes_the_rest_anew(tmp_path):
    file = tmp_path / "samples.jsonl"

    def lines():
        return [(line["step"], line["answer"]) for line in map(json.loads, file.read_text().splitlines())]

    first = SampleFile(file)
    for step in (2, 4, 6):
        first.add(step, [("q", f"at {step}")], since=1)
    assert lines() == [(2, "at 2"), (4, "at 4"), (6, "at 6")]
    again = SampleFile(file)
    again.add(4, [("q", "again"), ("r", "new")], since=4)
    again.add(6, [("q", "last")], since=4)
    assert lines() == [(2, "at 2"), (4, "again"), (4, "new"), (6, "last")]
    SampleFile(file).add(2, [("q", "of another run")], since=1)
    assert lines() == [(2, "of another run")]


def test_a_file_that_is_not_ours_is_left_alone(tmp_path):
    file = tmp_path / "samples.jsonl"
    file.write_text("my notes\n")
    with pytest.raises(ValueError, match="Expecting value"):
        SampleFile(file).add(1, [("q", "a")], since=1)
    assert file.read_text() == "my notes\n"
