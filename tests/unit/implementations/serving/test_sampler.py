import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.implementations.serving.messages import Sampling
from app.implementations.serving.sampler import Sampler, logprobs


def sampler(temperature: float = 1.0, top_p: float = 1.0, seed: int | None = 0) -> Sampler:
    return Sampler(Sampling(1, temperature, top_p, seed=seed), [1])


def counts(drawer: Sampler, logits: list[float], draws: int = 4000) -> list[float]:
    tensor = torch.tensor(logits)
    drawn = torch.tensor([drawer.draw(tensor) for _ in range(draws)])
    return [float((drawn == i).float().mean()) for i in range(len(logits))]


def test_zero_is_greedy() -> None:
    assert {sampler(0.0, 0.1).draw(torch.tensor([0.1, 3.0, 2.9])) for _ in range(20)} == {1}


def test_draws_follow_the_softmax_at_the_temperature() -> None:
    logits = [0.0, 1.0, 2.0]
    for temperature in (0.5, 1.0, 3.0):
        weights = [math.exp(x / temperature) for x in logits]
        expected = [w / sum(weights) for w in weights]
        assert counts(sampler(temperature), logits) == pytest.approx(expected, abs=0.03)


def test_a_nucleus_is_the_smallest_set_that_reaches_top_p() -> None:
    """0.5 + 0.3 reach 0.7; what is left is drawn in proportion."""
    logits = [math.log(p) for p in (0.15, 0.5, 0.05, 0.3)]
    assert counts(sampler(top_p=0.7), logits) == pytest.approx([0, 0.625, 0, 0.375], abs=0.03)


def test_equal_probabilities_at_the_edge_of_a_nucleus_are_cut_by_count() -> None:
    assert counts(sampler(top_p=0.5), [0.0] * 4, 500)[2:] == [0, 0]


@settings(deadline=None)
@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=50),
    st.floats(1e-30, 100),
    st.floats(1e-6, 1),
    st.integers(-(2**63), 2**63 - 1),
)
def test_any_draw_is_a_token_and_a_seed_repeats_it(
    logits: list[float], temperature: float, top_p: float, seed: int
) -> None:
    tensor = torch.tensor(logits, dtype=torch.float32)
    first, second = sampler(temperature, top_p, seed), sampler(temperature, top_p, seed)
    draws = [first.draw(tensor) for _ in range(3)]
    assert all(0 <= token < len(logits) for token in draws)
    assert draws == [second.draw(tensor) for _ in range(3)]


def test_without_a_seed_two_requests_differ() -> None:
    logits = torch.zeros(1000)
    one, other = sampler(seed=None), sampler(seed=None)
    assert [one.draw(logits) for _ in range(8)] != [other.draw(logits) for _ in range(8)]


def test_masked_tokens_are_never_drawn() -> None:
    logits = torch.tensor([float("-inf"), 0.0, float("-inf")])
    assert {sampler().draw(logits) for _ in range(20)} == {1}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_refused(bad: float, temperature: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        sampler(temperature).draw(torch.tensor([0.0, bad, 1.0]))


def test_logprobs_are_of_the_whole_distribution() -> None:
    chosen, top = logprobs(torch.tensor([0.5, 0.25, 0.25]).log(), 1, 1)
    assert chosen == pytest.approx(math.log(0.25))
    assert top == [(0, pytest.approx(math.log(0.5)))]


def drawn(logits: list[float], prompt: list[int] | None = None, draws: int = 400, **options: float) -> set[int]:
    """The tokens that are ever drawn, each by a sampler that has made none yet."""
    samplers = (Sampler(Sampling(1, seed=seed, **options), prompt or []) for seed in range(draws))  # type: ignore[arg-type]
    return {one.draw(torch.tensor(logits)) for one in samplers}


def test_top_k_keeps_the_most_likely() -> None:
    assert drawn([1.0, 3.0, 2.0, 0.0], temperature=5.0, top_k=2) == {1, 2}
    assert drawn([1.0, 3.0, 2.0, 0.0], temperature=5.0, top_k=0) == {0, 1, 2, 3}


def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest() -> None:
    logits = [math.log(p) for p in (0.5, 0.3, 0.15, 0.05)]
    assert drawn(logits, temperature=1.0, min_p=0.25) == {0, 1, 2}
    assert drawn(logits, temperature=1.0, min_p=1.0) == {0}


def test_what_was_read_or_made_is_less_likely_to_be_repeated() -> None:
    assert drawn([2.0, 1.9], prompt=[0], repetition_penalty=1.2) == {1}
    assert drawn([-2.0, -2.1], prompt=[0], repetition_penalty=1.2) == {1}
    assert drawn([2.0, 1.9], prompt=[0], presence_penalty=1.0) == {0}  # of what was made alone


def test_penalties_of_the_answer_count_what_was_made() -> None:
    def answer(**options: float) -> list[int]:
        one = Sampler(Sampling(1, **options), [])  # type: ignore[arg-type]
        return [one.draw(torch.tensor([2.0, 1.5, 0.9])) for _ in range(6)]

    assert answer() == [0] * 6
    assert answer(presence_penalty=2.0) == [0, 1, 2, 0, 0, 0]
    assert answer(frequency_penalty=0.4) == [0, 0, 1, 0, 1, 2]


def test_penalties_leave_the_models_own_logits_alone() -> None:
    logits = torch.tensor([1.0, 2.0])
    one = Sampler(Sampling(1, repetition_penalty=2.0, frequency_penalty=1.0), [0])
    for _ in range(3):
        one.draw(logits)
    assert logits.tolist() == [1.0, 2.0]
