"""What a reading says."""

import pytest

from benchmarks.comparison import Reading
from benchmarks.spec import Answer


def reading(epochs: int, step_ends: list[float]) -> Reading:
    answer = Answer(
        train_runtime=8.0, step_ends=step_ends, input_tokens=400, trained_tokens=200, adapter="", versions={}
    )
    return Reading(answer, epochs, process_seconds=12.0, peak_bytes=1)


def test_tokens_of_all_epochs_by_the_training_loops_time() -> None:
    assert reading(2, [2, 5, 6, 7]).tokens_per_second == 50


@pytest.mark.parametrize(("epochs", "expected"), [(1, None), (2, 200 / 2), (4, 100 / 1)])
def test_the_last_epoch_begins_where_the_one_before_ended(epochs: int, expected: float | None) -> None:
    assert reading(epochs, [2, 5, 6, 7]).last_epoch_tokens_per_second == expected
