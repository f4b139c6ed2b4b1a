"""The packed, selective loss against transformers' own, one unpadded row at a time (its norms are float32)."""

import pytest
import torch

from app.core.entities.training_config import TrainingConfig
from app.core.errors import Invalid
from app.implementations.training.adaptations.lora import LoraAdaptation, trainable
from app.implementations.training.batches import pack
from app.implementations.training.objectives.sft import SftObjective
from app.implementations.training.packed_attention import attention_of_transformers


def adapted(make_model, attention):
    model = LoraAdaptation(TrainingConfig(r=4)).prepare(make_model(attention, torch.float64), "tiny")
    torch.manual_seed(3)
    for name, parameter in trainable(model).items():
        if "lora_B" in name:  # zero at first, which would hide A's gradient
            parameter.data.normal_()
    return model


@pytest.mark.parametrize("longest", [1024, 0], ids=["in blocks", "by PyTorch"])
def test_loss_and_gradients_equal_the_plain_computation(make_model, make_rows, monkeypatch, longest):
    monkeypatch.setattr("app.implementations.training.kernels.attention.LONGEST", longest)
    rows = make_rows(6)
    packed, plain = adapted(make_model, "packed"), adapted(make_model, "eager")
    batch = pack(rows)

    supervised = sum(row.supervised for row in rows)
    loss = SftObjective(packed, TrainingConfig())(batch)["loss"] / supervised
    loss.backward()
    expected = sum(
        plain(input_ids=torch.tensor([row.input_ids]), labels=torch.tensor([row.labels])).loss
        * sum(label >= 0 for label in row.labels[1:])
        for row in rows
    )
    expected = expected / supervised
    expected.backward()

    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    reference = trainable(plain)
    for name, parameter in trainable(packed).items():
        error = (parameter.grad - reference[name].grad).norm() / reference[name].grad.norm()
        assert error < 1e-5, name


def test_a_row_does_not_see_its_neighbours(make_model, make_rows):
    objective = SftObjective(make_model(), TrainingConfig())
    first, second, other = make_rows(3)

    def loss(*rows):
        return objective(pack(rows))["loss"]

    together = loss(first, second) - loss(second)
    beside_another = loss(first, other) - loss(other)

    assert together.item() == pytest.approx(loss(first).item(), abs=1e-4)
    assert beside_another.item() == pytest.approx(together.item(), abs=1e-4)


@pytest.mark.parametrize("trait", [{"softcap": 30.0}, {"sliding_window": 3}])
def test_attention_of_another_kind_is_refused(trait):
    states = torch.zeros(1, 2, 8, 4)
    with pytest.raises(Invalid):
        attention_of_transformers(torch.nn.Identity(), states, states, states, None, segments=((0, 8),), **trait)


def test_layers_that_the_model_lacks_are_named(make_model):
    config = TrainingConfig(target_modules=("q_proj", "query", "value"))
    with pytest.raises(Invalid) as raised:
        LoraAdaptation(config).prepare(make_model(), "tiny")

    assert [fault.message.split(";")[0] for fault in raised.value.faults] == ["query", "value"]
    assert "q_proj" in raised.value.faults[0].message
