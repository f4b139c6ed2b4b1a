import random

import numpy
import pytest
import torch

from app.core.errors import Conflict, Invalid
from app.core.interfaces.components import TrainingStopped
from app.core.services.jobs.resuming import latest_checkpoint
from app.implementations.training.batches import plan_epoch
from app.implementations.training.loop import TrainingFailed, evaluate
from app.utils.folders import locked


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


@pytest.mark.parametrize("objective", ["sft", "dpo", "pretrain"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(make_loop, listener, stop_at, dtype, objective):
    """In the middle of an epoch and at its edge (three steps an epoch), dropout included."""
    options = {"num_epochs": 3, "lora": {"lora_dropout": 0.2}, "dtype": dtype, "objective": objective}
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
    assert counters.input_tokens == 3 * sum(row.tokens for row in whole.train_rows)


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


@pytest.mark.parametrize("shape", [{"batch_size": 4}, {"batch_size": 2, "gradient_accumulation_steps": 2}])
def test_a_poisoned_row_among_others_is_named_alone(make_loop, listener, shape):
    """Seventh in the file, and some of its batch are sound; the weights are left as they were before the step."""
    loop = make_loop(listener(), num_epochs=1, **shape)

    def poison(module, arguments, found):
        return {"loss": found["loss"] * float("nan")} if 7 in arguments[0].rows else found

    loop.wrapped.register_forward_hook(poison)
    with pytest.raises(TrainingFailed, match=r"the loss became nan in step [123], on row 7:") as raised:
        loop.run()
    assert raised.value.code == "nan_loss"
    assert all(bool(torch.isfinite(master).all()) for master in loop.optimizer.masters.values())


def test_a_gradient_that_is_not_a_number_stops_the_run_too(make_loop, listener):
    loop = make_loop(listener(), num_epochs=1)
    parameter = next(iter(loop.optimizer.parameters.values()))
    parameter.register_hook(lambda gradient: gradient * float("inf"))

    with pytest.raises(TrainingFailed, match=r"the gradient became (nan|inf) in step 1, on rows"):
        loop.run()


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


@pytest.mark.parametrize("best_at_end", [True, False])
def test_the_best_weights_on_validation_rows_are_published_where_asked(make_loop, listener, best_at_end):
    """A learning rate that ruins the model again: the lowest validation loss is not the last."""
    heard = listener()
    loop = make_loop(
        heard,
        num_epochs=3,
        eval_steps=2,
        learning_rate=0.5,
        lr_schedule="constant",
        load_best_model_at_end=best_at_end,
    )
    loop.run()

    losses = [event["eval_loss"] for event in heard.evaluations]
    assert len(losses) > 3
    assert min(losses) < losses[-1]
    again = evaluate(loop.objective, loop.wrapped, loop.strategy, loop.validation_rows, 4, loop.device)
    assert again["eval_loss"] == pytest.approx(min(losses) if best_at_end else losses[-1], rel=1e-6)


def test_the_best_weights_outlive_the_process(make_loop, listener):
    """The best come before the stop, so that only the checkpoint can have them."""
    options = {"num_epochs": 4, "learning_rate": 0.5, "lr_schedule": "constant", "load_best_model_at_end": True}
    whole = make_loop(listener(), **options)
    counters = whole.run()
    with pytest.raises(TrainingStopped):
        make_loop(listener(counters.best_step + 1), folder="parts", **options).run()
    resumed = make_loop(listener(), folder="parts", **options)
    resumed.run()

    assert counters.best_step < 9
    assert equal(weights(resumed), weights(whole))


@pytest.mark.parametrize(("limit", "kept"), [(1, [6]), (2, [5, 6]), (3, [4, 5, 6])])
def test_save_total_limit_keeps_the_newest(make_loop, listener, limit, kept):
    loop = make_loop(listener(), num_epochs=2, save_steps=1, save_total_limit=limit)
    loop.run()

    assert sorted(path.name for path in loop.checkpoints.iterdir()) == [f"step-{step:08d}" for step in kept]


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(make_loop, listener):
    whole = make_loop(listener(), num_epochs=2, save_steps=1)
    whole.run()
    newest = latest_checkpoint(whole.checkpoints)
    (newest / "optimizer.pt").write_bytes((newest / "optimizer.pt").read_bytes()[:-1])
    heard = listener()
    again = make_loop(heard, num_epochs=2, save_steps=1)
    again.run()

    assert [event["step"] for event in heard.steps] == [6]
    assert equal(weights(again), weights(whole))


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "lamb"])
def test_every_optimizer_learns_and_goes_on_bit_for_bit(make_loop, listener, optimizer):
    options = {"num_epochs": 6, "optimizer": optimizer, "learning_rate": 5e-2}
    heard_whole = listener()
    whole = make_loop(heard_whole, **options)
    whole.run()
    with pytest.raises(TrainingStopped):
        make_loop(listener(4), folder="parts", **options).run()
    heard = listener()
    resumed = make_loop(heard, folder="parts", **options)
    resumed.run()

    assert heard_whole.evaluations[-1]["eval_loss"] != heard_whole.evaluations[0]["eval_loss"]
    assert heard_whole.steps[-1]["loss"] < heard_whole.steps[0]["loss"]
    assert [e["loss"] for e in heard.steps] == [e["loss"] for e in heard_whole.steps[4:]]
    assert equal(weights(resumed), weights(whole))


def test_nothing_reads_random_state_from_outside(make_loop, listener):
    """Why a checkpoint holds none: what each step draws is set anew, whatever was drawn elsewhere before."""
    options = {"num_epochs": 2, "lora": {"lora_dropout": 0.2}}
    whole = make_loop(listener(), **options)
    whole.run()
    disturbed = listener()
    again = make_loop(disturbed, folder="again", **options)
    states = []
    report = disturbed.metrics

    def disturb(*arguments):
        report(*arguments)
        torch.rand(3), random.random(), numpy.random.rand()
        states.append((random.getstate(), numpy.random.get_state()[1].tolist()))

    disturbed.metrics = disturb
    random.seed(1), numpy.random.seed(1)
    again.run()
    random.seed(1), numpy.random.seed(1)
    for state in states:  # each call drew once: nobody else did
        random.random(), numpy.random.rand()
        assert state == (random.getstate(), numpy.random.get_state()[1].tolist())

    assert equal(weights(again), weights(whole))


# --- going on elsewhere, or with another config ---


def stopped(make_loop, listener, **options):
    loop = make_loop(listener(1), num_epochs=1, **options)
    loop.machine = {"threads": 2, "torch": "2.13.0"}
    with pytest.raises(TrainingStopped):
        loop.run()


def test_a_resume_that_cannot_be_exact_names_each_difference(make_loop, listener):
    stopped(make_loop, listener)
    heard = listener()
    loop = make_loop(heard, num_epochs=2, batch_size=2, gradient_accumulation_steps=2, logging_steps=2)
    loop.machine = {"threads": 1, "torch": "2.13.0"}
    loop.run()

    (warning,) = [message for message in heard.messages if "not to the bit" in message]
    named = {"threads: 2 then, 1 now", "num_epochs: 1 then, 2 now", "batch_size: 4 then, 2 now"}
    assert set(warning.partition(": ")[2].split("; ")) == named | {"gradient_accumulation_steps: 1 then, 2 now"}
    assert heard.steps[-1]["step"] == 6


def test_a_resume_of_the_same_run_warns_of_nothing(make_loop, listener):
    stopped(make_loop, listener)
    heard = listener()
    loop = make_loop(heard, num_epochs=1, save_total_limit=5, save_steps=1, experiment_name="renamed")
    loop.machine = {"threads": 2, "torch": "2.13.0"}
    loop.run()

    assert heard.messages == ["going on from step 1"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lora": {"r": 8}}, "lora.r: 16 then, 8 now"),
        ({"base_model": "another"}, "base_model: deepseek-r1-1.5b then, another now"),
        ({"optimizer": "lamb"}, "optimizer: adamw then, lamb now"),
        ({"from_version": "shops:3"}, "from_version: nothing then, shops:3 now"),
        ({"batch_size": 2}, "rows a step: 4 then, 2 now"),
        ({"seed": 1}, "seed: 42 then, 1 now"),
        ({"strategy": "deepspeed"}, "deepspeed: false then, true now"),
        ({"train": 9}, "training rows: "),
    ],
)
def test_another_run_is_refused_by_name(make_loop, listener, changes, named):
    stopped(make_loop, listener)
    loop = make_loop(listener(), num_epochs=1, **changes)
    loop.machine = {"threads": 2, "torch": "2.13.0"}
    before = weights(loop)

    with pytest.raises(Invalid) as refused:
        loop.run()
    assert refused.value.code == "cannot_resume"
    assert [fault.message for fault in refused.value.faults if fault.message.startswith(named)]
    assert equal(weights(loop), before)


def test_two_trainers_never_share_checkpoints(make_loop, listener):
    loop = make_loop(listener(), num_epochs=1)
    with locked(loop.checkpoints), pytest.raises(Conflict) as refused:
        loop.run()
    assert refused.value.code == "run_is_live"


# --- a disk that is full ---


@pytest.mark.parametrize("fails", ["the first file", "a later file"])
def test_a_full_disk_costs_a_checkpoint_and_no_more(make_loop, listener, small_disk, fails):
    heard = listener()
    loop = make_loop(heard, folder="disk/checkpoints", num_epochs=1, save_steps=1, save_total_limit=3)
    report, while_full = heard.metrics, []

    def fill_and_clear(step, *arguments):
        report(step, *arguments)
        if step == 2:
            adapter = (latest_checkpoint(loop.checkpoints) / "adapter.safetensors").stat().st_size
            small_disk.fill(0 if fails == "the first file" else adapter + 8192)
        if step == 3:
            while_full.append(latest_checkpoint(loop.checkpoints).name)
            small_disk.clear()

    heard.metrics = fill_and_clear
    loop.run()

    (warning,) = heard.messages
    assert warning.startswith("step 2: the disk is full")
    assert while_full[0] == "step-00000001"
    assert sorted(path.name for path in loop.checkpoints.iterdir()) == ["step-00000001", "step-00000003"]
    assert latest_checkpoint(loop.checkpoints).name == "step-00000003"


def test_without_validation_rows_there_is_no_evaluation(make_loop, listener):
    heard = listener()
    counters = make_loop(heard, validation=0, num_epochs=1).run()

    assert heard.evaluations == []
    assert counters.eval_loss is None
