from app.utils.percentiles import percentiles


def test_nearest_ranks() -> None:
    assert percentiles(range(1000, 0, -1), (50, 95, 100)) == {50: 500, 95: 950, 100: 1000}
    assert percentiles([7], (50, 99)) == {50: 7, 99: 7}
    assert percentiles([], (50,)) == {}
