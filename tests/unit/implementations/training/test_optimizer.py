import io
import sys
from typing import get_args

import pytest
import torch
from torch import nn

from app.core.entities.training_config import TrainingConfig
from app.core.errors import Invalid
from app.implementations.training.lamb import LOWEST_NORM
from app.implementations.training.optimizer import MasterOptimizer, learning_rate

OPTIMIZERS = get_args(TrainingConfig.model_fields["optimizer"].annotation)


def parameters(dtype=torch.float32):
    """One large enough for 8-bit state, one that is not, one of zeros as LoRA's B begins."""
    generator = torch.Generator().manual_seed(1)
    shapes = {"large": (64, 128), "small": (8, 16)}
    made = {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}
    return {name: nn.Parameter(w.to(dtype)) for name, w in {**made, "zeros": torch.zeros(16, 8)}.items()}


def gradients(named, seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(p.shape, generator=generator).to(p.dtype) for name, p in named.items()}


def take_steps(optimizer, steps, first=0):
    for number in range(first, first + steps):
        for name, gradient in gradients(optimizer.parameters, number).items():
            optimizer.parameters[name].grad = gradient
        optimizer.accumulate()
        optimizer.clip(1.0)
        optimizer.step(1e-2)


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


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clipping_gives_the_numbers_of_torchs_own(max_norm):
    named = parameters(torch.bfloat16)
    optimizer = MasterOptimizer(named, weight_decay=0.0)
    plain = [nn.Parameter(p.detach().float()) for p in named.values()]
    for ours, other, gradient in zip(named.values(), plain, gradients(named, 5).values(), strict=True):
        ours.grad, other.grad = gradient, gradient.float()
    optimizer.accumulate()

    assert optimizer.clip(max_norm) == float(nn.utils.clip_grad_norm_(plain, max_norm))
    for master, other in zip(optimizer.masters.values(), plain, strict=True):
        assert torch.equal(master.grad, other.grad)


def test_adamw_is_torchs():
    optimizer = MasterOptimizer(parameters(), weight_decay=0.1)
    plain = parameters()
    reference = torch.optim.AdamW(plain.values(), lr=1e-2, weight_decay=0.1, foreach=False)
    take_steps(optimizer, 10)
    for number in range(10):
        for name, gradient in gradients(plain, number).items():
            plain[name].grad = gradient
        nn.utils.clip_grad_norm_(plain.values(), 1.0)
        reference.step()

    for name, weight in plain.items():
        torch.testing.assert_close(optimizer.masters[name], weight.detach(), rtol=1e-5, atol=1e-6)


def test_lamb_is_the_papers_algorithm():
    optimizer = MasterOptimizer(parameters(), weight_decay=0.1, optimizer="lamb")
    weights = {name: p.detach().double().clone() for name, p in parameters().items()}
    mean, square = ({name: torch.zeros_like(w) for name, w in weights.items()} for _ in range(2))
    for number in range(5):
        for name, gradient in gradients(optimizer.parameters, number).items():
            optimizer.parameters[name].grad = gradient
            w, g = weights[name], gradient.double()
            mean[name] = 0.9 * mean[name] + 0.1 * g
            square[name] = 0.999 * square[name] + 0.001 * g * g
            adam = (
                mean[name]
                / (1 - 0.9 ** (number + 1))
                / ((square[name] / (1 - 0.999 ** (number + 1))).sqrt() + 1e-6)
            )
            update = adam + 0.1 * w
            weights[name] = w - 1e-2 * max(float(w.norm()), LOWEST_NORM) / update.norm() * update
        optimizer.accumulate()
        optimizer.step(1e-2)

    for name, weight in weights.items():
        torch.testing.assert_close(optimizer.masters[name].double(), weight, rtol=1e-4, atol=1e-6)


def test_lamb_leaves_alone_what_has_no_gradient():
    optimizer = MasterOptimizer(parameters(), weight_decay=0.0, optimizer="lamb")
    optimizer.step(1e-2)

    for name, weight in parameters().items():
        assert torch.equal(optimizer.masters[name], weight)


def test_adamw_8bit_keeps_bytes_and_stays_near_adamw():
    eight, whole = (MasterOptimizer(parameters(), 0.0, optimizer=name) for name in ("adamw_8bit", "adamw"))
    take_steps(eight, 20)
    take_steps(whole, 20)

    moments = eight._inner.state[eight.masters["large"]]
    assert moments["state1"].dtype == moments["state2"].dtype == torch.uint8
    start = parameters()
    for name, master in whole.masters.items():
        distance = (master - start[name]).norm()
        assert (eight.masters[name] - master).norm() < 0.05 * distance, name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_goes_on_from_its_state_bit_for_bit(name):
    factors = {"zeros": 16.0}
    whole = MasterOptimizer(parameters(torch.bfloat16), 0.01, factors, name)
    take_steps(whole, 6)
    first = MasterOptimizer(parameters(torch.bfloat16), 0.01, factors, name)
    take_steps(first, 3)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    second = MasterOptimizer(parameters(torch.bfloat16), 0.01, factors, name)
    second.load_masters(first.masters)
    second.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    take_steps(second, 3, first=3)

    for key, master in whole.masters.items():
        assert torch.equal(second.masters[key], master)
        assert torch.equal(second.parameters[key], master.bfloat16())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rate_factors_multiply_the_learning_rate_of_those_they_name(name):
    plain, faster = (MasterOptimizer(parameters(), 0.0, factors, name) for factors in (None, {"small": 4.0}))
    take_steps(plain, 1)
    take_steps(faster, 1)

    start = parameters()
    for key, factor in {"large": 1.0, "small": 4.0, "zeros": 1.0}.items():
        moved, expected = faster.masters[key] - start[key], (plain.masters[key] - start[key]) * factor
        torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-6)


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(Invalid, match="bitsandbytes"):
        MasterOptimizer(parameters(), 0.0, optimizer="adamw_8bit")


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447]),
    ],
)
@pytest.mark.parametrize("warmup", [{"warmup_steps": 2}, {"warmup_ratio": 0.3}])
def test_schedules(schedule, expected, warmup):
    """0.3 of 6 steps are 2: a part of a step counts as one."""
    config = TrainingConfig(learning_rate=1.0, lr_schedule=schedule, **warmup)

    assert [learning_rate(config, step, 6) for step in range(6)] == pytest.approx(expected, abs=1e-6)


def test_a_tenth_of_thirty_steps_are_three():
    config = TrainingConfig(learning_rate=1.0, lr_schedule="constant", warmup_ratio=0.1)

    assert [learning_rate(config, step, 30) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1.0])


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
