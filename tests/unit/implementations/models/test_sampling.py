"""Drawing a token: what may be drawn, how often, and the same again for the same seed."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from app.core.entities.inference import SamplingOptions
from app.implementations.models.sampling import keep_top_k, keep_top_p, sample

FIVE = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shares(draws: int = 4000, **options: Any) -> list[float]:
    generator = seeded()
    drawn = torch.tensor(
        [sample(FIVE.log(), SamplingOptions(**{"temperature": 1.0} | options), generator) for _ in range(draws)]
    )
    return [float((drawn == token).float().mean()) for token in range(5)]


def test_zero_is_the_likeliest() -> None:
    assert shares(20, temperature=0.0) == [0, 1, 0, 0, 0]


def test_draws_follow_the_softmax_at_the_temperature() -> None:
    for temperature in (0.5, 1.0, 2.0):
        weights = [float(share) ** (1 / temperature) for share in FIVE]
        expected = [weight / sum(weights) for weight in weights]
        assert shares(temperature=temperature) == pytest.approx(expected, abs=0.03)


def test_top_k_draws_from_so_many() -> None:
    assert shares(top_k=2) == pytest.approx([0, 0.4 / 0.65, 0, 0.25 / 0.65, 0], abs=0.03)
    assert shares(50, top_k=1) == [0, 1, 0, 0, 0]
    assert shares(top_k=5) == shares(top_k=0) == shares(top_k=99)


def test_top_p_draws_from_the_fewest_that_hold_the_share() -> None:
    assert shares(top_p=0.7) == pytest.approx([0, 0.4 / 0.85, 0, 0.25 / 0.85, 0.2 / 0.85], abs=0.03)
    assert shares(50, top_p=0.01) == [0, 1, 0, 0, 0]


def test_top_p_counts_within_top_k() -> None:
    """Of 0.4 and 0.25, the first alone holds 61 %."""
    assert shares(50, top_k=2, top_p=0.6) == [0, 1, 0, 0, 0]
    assert shares(top_k=2, top_p=0.63) == shares(top_k=2)


def test_equal_probabilities_at_the_edge_are_cut_by_count() -> None:
    assert int(keep_top_k(torch.full((4,), 0.25), 3).count_nonzero()) == 3
    assert int(keep_top_p(torch.full((4,), 0.25), 0.5).count_nonzero()) == 2


@pytest.mark.parametrize("seed", range(5))
def test_what_may_be_drawn_is_what_transformers_lets_through(seed: int) -> None:
    logits = torch.randn(1, 200, generator=seeded(seed)) * 3
    warped = TemperatureLogitsWarper(0.7)(None, logits)
    warped = TopPLogitsWarper(0.8)(None, TopKLogitsWarper(20)(None, warped))
    expected = warped.softmax(-1)[0]
    ours = keep_top_k((logits[0] / 0.7).softmax(-1), 20)
    ours = keep_top_p(ours / ours.sum(), 0.8)
    torch.testing.assert_close(ours / ours.sum(), expected)


@settings(deadline=None)
@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=50),
    st.floats(1e-30, 100),
    st.integers(0, 60),
    st.floats(1e-6, 1),
    st.integers(0, 2**63 - 1),
)
def test_any_draw_is_a_token_and_a_seed_repeats_it(
    logits: list[float], temperature: float, top_k: int, top_p: float, seed: int
) -> None:
    tensor = torch.tensor(logits, dtype=torch.float32)
    sampling = SamplingOptions(1, temperature, top_p, top_k)
    runs = [[sample(tensor, sampling, again) for _ in range(3)] for again in (seeded(seed), seeded(seed))]
    assert runs[0] == runs[1]
    assert all(0 <= token < len(logits) for token in runs[0])
    assert tensor.tolist() == logits
