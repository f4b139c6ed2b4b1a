import pytest

from app.core.entities.forecasts import in_minutes


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.25, "0.2 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (3661, "1 h 1 min"),
    ],
)
def test_a_time_in_words(seconds: float, said: str) -> None:
    assert in_minutes(seconds) == said
