from hypothesis import given
from hypothesis import strategies as st

from app.core.entities.datasets import IGNORED
from app.implementations.training.batches import pack, plan_epoch


@given(
    rows=st.integers(1, 200),
    batch_size=st.integers(1, 17),
    accumulation=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 1000),
)
def test_a_plan_holds_each_row_once_and_is_a_pure_function(rows, batch_size, accumulation, seed, epoch):
    plan = plan_epoch(rows, batch_size, accumulation, seed, epoch)

    assert sorted(row for step in plan for micro in step for row in micro) == list(range(rows))
    assert all(len(micro) == batch_size for step in plan for micro in step[:-1])
    assert all(len(step) == accumulation for step in plan[:-1])
    assert plan == plan_epoch(rows, batch_size, accumulation, seed, epoch)


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {str(plan_epoch(50, 8, 1, seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}

    assert len(orders) == 4


def test_packed_rows_touch_without_padding(make_rows):
    rows = make_rows(5)
    batch = pack(rows)

    assert batch.tokens == sum(len(row.input_ids) for row in rows)
    assert batch.rows == (1, 2, 3, 4, 5)
    for row, (start, end) in zip(rows, batch.segments, strict=True):
        assert batch.input_ids[0, start:end].tolist() == list(row.input_ids)
        assert batch.position_ids[0, start:end].tolist() == list(range(end - start))
        assert batch.labels[0, start] == IGNORED  # nothing before it in its row predicts it
        assert batch.labels[0, start + 1 : end].tolist() == list(row.labels[1:])
    assert int((batch.labels != IGNORED).sum()) == sum(row.supervised for row in rows)
