"""/v1/completions, as the official client speaks it."""

import openai as wire
import pytest

from app.core.entities.inference import AnswerOptions, CompletionRequest

BASE = "smollm2-135m-instruct"


def ask(openai, prompt="abc", **options):
    return openai.completions.create(model=BASE, prompt=prompt, **options)


def test_a_text_that_goes_on(openai, twins):
    answer = ask(openai, temperature=0, best_of=1, extra_body={"top_k": 3})
    assert answer.to_dict() == {
        "id": answer.id,
        "object": "text_completion",
        "created": answer.created,
        "model": BASE,
        "choices": [{"index": 0, "text": "cba", "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6},
    }
    options = AnswerOptions(temperature=0, max_tokens=16, top_k=3, stop=[])
    assert twins.inference.asked == [("default", CompletionRequest(["abc"], BASE, options))]


def test_several_texts_several_times(openai):
    answer = ask(openai, ["abc", "de"], n=2, logprobs=1)
    assert [(one.index, one.text) for one in answer.choices] == [(0, "cba"), (1, "cba"), (2, "ed"), (3, "ed")]
    assert answer.usage.total_tokens == 10
    assert answer.choices[0].logprobs.to_dict() == {
        "tokens": ["a"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"a": -0.5}],
        "text_offset": [0],
    }


def test_a_stream(openai):
    chunks = list(ask(openai, stream=True, logprobs=0, stream_options={"include_usage": True}))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.text for choice in choices) == "cba"
    assert [choice.logprobs.text_offset for choice in choices if choice.logprobs] == [[0], [1], [2]]
    assert choices[-1].finish_reason == "stop"
    assert chunks[-1].usage.total_tokens == 6


def test_a_text_has_no_reasoning(openai, twins):
    twins.inference.streams = "<think>hm</think>yes"
    chunks = ask(openai, stream=True)
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == "<think>hm</think>yes"


def test_what_is_not_here_is_refused(openai, twins):
    with pytest.raises(wire.BadRequestError) as caught:
        ask(openai, ["a", "b"], stream=True, echo=True, suffix="x", best_of=2)
    named = {line.partition(":")[0] for line in caught.value.body["message"].splitlines()[1:]}
    assert named == {"prompt", "echo", "suffix", "best_of"}
    assert not twins.inference.asked


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [([97, 98], [[97, 98]]), ([[97, 98], [99]], [[97, 98], [99]]), (["ab", "c"], ["ab", "c"])],
)
def test_a_prompt_may_be_token_ids(openai, twins, prompt, prompts):
    answer = ask(openai, prompt)
    assert [choice.text for choice in answer.choices] == ["ba", "c"][: len(prompts)]
    assert twins.inference.asked[-1][1].prompts == prompts


@pytest.mark.parametrize(
    ("prompt", "params"),
    [
        ([], ["prompt"]),
        ("", ["prompt"]),
        ([-1], ["prompt"]),
        ([True], ["prompt.0"]),
        ([1, "a"], ["prompt.0"]),
        ([[1], [2, "a"], [], ""], ["prompt.1", "prompt.2", "prompt.3"]),
        ([[2**31]], ["prompt.0"]),
        ({"a": 1}, ["prompt"]),
    ],
)
def test_other_prompts_are_refused(openai, twins, prompt, params):
    with pytest.raises(wire.BadRequestError) as caught:
        ask(openai, prompt)
    assert [line.partition(":")[0] for line in caught.value.body["message"].splitlines()[1:]] == params
    assert not twins.inference.asked
