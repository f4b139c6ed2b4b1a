import pytest
import torch
from torch import nn

from app.core.entities.training_config import TrainingConfig
from app.implementations.training.optimizer import MasterOptimizer, learning_rate


def test_steps_too_small_for_bf16_add_up_in_the_masters():
    weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    optimizer = MasterOptimizer({"w": weight}, weight_decay=0.0)
    for _ in range(100):
        weight.grad = torch.ones(1, dtype=torch.bfloat16)
        optimizer.accumulate()
        optimizer.step(1e-4)  # below half of bf16's spacing at 1: alone it would round away

    assert optimizer.masters["w"].item() == pytest.approx(0.99, abs=1e-4)
    assert weight.item() == pytest.approx(0.99, abs=4e-3)


def test_gradients_of_micro_steps_are_summed_and_clipped_in_float32():
    weight = nn.Parameter(torch.zeros(4))
    optimizer = MasterOptimizer({"w": weight}, weight_decay=0.0)
    for gradient in (torch.full((4,), 1.0), torch.full((4,), 2.0)):
        weight.grad = gradient
        optimizer.accumulate()

    assert weight.grad is None
    assert optimizer.clip(3.0) == pytest.approx(6.0)
    assert optimizer.masters["w"].grad.norm().item() == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447]),
    ],
)
def test_schedules(schedule, expected):
    config = TrainingConfig(learning_rate=1.0, warmup_steps=2, lr_schedule=schedule)

    assert [learning_rate(config, step, 6) for step in range(6)] == pytest.approx(expected, abs=1e-6)


def test_some_parameters_learn_faster_and_still_do_after_a_checkpoint():
    def made() -> MasterOptimizer:
        weights = {name: nn.Parameter(torch.zeros(2)) for name in ("a", "b")}
        return MasterOptimizer(weights, weight_decay=0.0, rate_factors={"b": 16.0})

    first, second = made(), made()
    for optimizer in (first, second):
        optimizer.load_state_dict(first.state_dict())
        for weight in optimizer.parameters.values():
            weight.grad = torch.ones(2)
        optimizer.accumulate()
        optimizer.step(1e-3)  # AdamW's first step is the learning rate, whatever the gradient
        moved = {name: -weight[0].item() for name, weight in optimizer.parameters.items()}
        assert moved == pytest.approx({"a": 1e-3, "b": 16e-3})
