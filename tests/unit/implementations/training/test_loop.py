import pytest
import torch

from app.core.interfaces.components import TrainingStopped
from app.core.services.resuming import latest_checkpoint
from app.implementations.training.batches import plan_epoch
from app.implementations.training.loop import TrainingFailed, evaluate


def weights(loop):
    return {name: master.clone() for name, master in loop.optimizer.masters.items()}


def equal(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


def test_it_learns_and_counts_real_tokens(make_loop, listener):
    heard = listener()
    loop = make_loop(heard, num_epochs=8)
    counters = loop.run()

    assert heard.steps[-1]["step"] == heard.steps[-1]["total_steps"] == 24
    assert heard.steps[-1]["loss"] < heard.steps[0]["loss"]
    assert counters.input_tokens == 8 * sum(len(row.input_ids) for row in loop.train_rows)
    supervised = sum(label >= 0 for row in loop.train_rows for label in row.labels[1:])
    assert counters.trained_tokens == 8 * supervised
    assert len(heard.evaluations) == 8
    assert heard.evaluations[-1]["eval_loss"] == counters.eval_loss


def test_logging_steps_thins_the_metrics(make_loop, listener):
    heard = listener()
    make_loop(heard, num_epochs=2, logging_steps=4).run()

    assert [event["step"] for event in heard.steps] == [4, 6]


def test_accumulation_gives_the_gradient_of_one_large_batch(make_loop, listener):
    """Rows differ in their count of supervised tokens: a mean of means would differ."""
    whole, parts = listener(), listener()
    one = make_loop(whole, train=8, batch_size=8, num_epochs=1)
    eight = make_loop(parts, folder="parts", train=8, batch_size=1, gradient_accumulation_steps=8, num_epochs=1)
    one.run()
    eight.run()

    assert whole.steps[0]["loss"] == pytest.approx(parts.steps[0]["loss"], rel=1e-5)
    assert whole.steps[0]["grad_norm"] == pytest.approx(parts.steps[0]["grad_norm"], rel=1e-4)


def test_gradient_checkpointing_changes_no_number(make_loop, listener):
    plain, saving = listener(), listener()
    make_loop(plain, num_epochs=1).run()
    loop = make_loop(saving, folder="saving", num_epochs=1)
    loop.objective.model.activation_checkpointing_enable({"use_reentrant": False})
    loop.run()

    assert [e["loss"] for e in saving.steps] == pytest.approx([e["loss"] for e in plain.steps], rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(make_loop, listener, stop_at, dtype):
    """In the middle of an epoch and at its edge (three steps an epoch), dropout included."""
    options = {"num_epochs": 3, "lora": {"lora_dropout": 0.2}, "dtype": dtype}
    whole = make_loop(listener(), **options)
    heard_whole = whole.report
    whole.run()

    with pytest.raises(TrainingStopped):
        make_loop(listener(stop_at), folder="parts", **options).run()
    heard = listener()
    resumed = make_loop(heard, folder="parts", **options)
    counters = resumed.run()

    assert heard.steps[0]["step"] == stop_at + 1
    assert [e["loss"] for e in heard.steps] == [e["loss"] for e in heard_whole.steps[stop_at:]]
    assert equal(weights(resumed), weights(whole))
    assert counters.input_tokens == 3 * sum(len(row.input_ids) for row in whole.train_rows)


def test_a_damaged_checkpoint_is_passed_over(make_loop, listener, tmp_path):
    loop = make_loop(listener(), num_epochs=1)
    loop.run()
    place = latest_checkpoint(loop.checkpoints)
    weights_file = place / "adapter.safetensors"
    content = bytearray(weights_file.read_bytes())
    content[-1] ^= 1  # the size stays
    weights_file.write_bytes(content)

    assert latest_checkpoint(loop.checkpoints) is None


def test_save_steps_says_when(make_loop, listener):
    loop = make_loop(listener(), num_epochs=1, save_steps=2)
    loop.run()

    assert [path.name for path in loop.checkpoints.iterdir()] == ["step-00000002"]


def test_a_loss_that_is_not_a_number_names_the_rows(make_loop, listener):
    loop = make_loop(listener(), num_epochs=1)
    for parameter in loop.optimizer.parameters.values():
        parameter.data.fill_(float("nan"))

    with pytest.raises(TrainingFailed) as raised:
        loop.run()
    assert raised.value.code == "nan_loss"
    (first, *_) = plan_epoch(10, 4, 1, loop.config.seed, epoch=0)
    rows = ", ".join(str(place + 1) for place in first[0])
    assert f"in step 1, on rows {rows}:" in raised.value.message


def test_early_stopping_publishes_the_best_weights(make_loop, listener, make_rows):
    """A learning rate that ruins the model: the first epoch's weights come back."""
    heard = listener()
    loop = make_loop(heard, num_epochs=20, learning_rate=0.5, early_stopping_patience=2, lr_schedule="constant")
    counters = loop.run()

    losses = [event["eval_loss"] for event in heard.evaluations]
    best = min(losses)
    assert len(losses) < 20
    assert losses.index(best) == len(losses) - 3
    assert counters.best_eval_loss == best
    again = evaluate(loop.objective, loop.wrapped, loop.strategy, loop.validation_rows, 4, loop.device)
    assert again["eval_loss"] == pytest.approx(best, rel=1e-6)


def test_without_validation_rows_there_is_no_evaluation(make_loop, listener):
    heard = listener()
    counters = make_loop(heard, validation=0, num_epochs=1).run()

    assert heard.evaluations == []
    assert counters.eval_loss is None
