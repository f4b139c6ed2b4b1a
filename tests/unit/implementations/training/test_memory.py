"""Memory by part: against sizes that are known beforehand."""

import torch
from torch import nn

from app.core.entities.training_config import TrainingConfig
from app.implementations.training.adaptations.lora import LoraAdaptation, trainable
from app.implementations.training.batches import pack
from app.implementations.training.memory import memory_by_part, saved_for_backward
from app.implementations.training.objective_module import ObjectiveModule
from app.implementations.training.objectives.sft import SftObjective
from app.implementations.training.optimizer import MasterOptimizer


def test_parts_are_what_their_tensors_weigh(make_model):
    base = make_model(dtype=torch.bfloat16)
    entries = sum(p.numel() for p in base.parameters())
    positions = sum(buffer.nbytes for buffer in base.buffers())
    model = LoraAdaptation(TrainingConfig(r=4)).prepare(base, "tiny")
    learning = trainable(model)
    optimizer = MasterOptimizer(learning, 0.0)
    for parameter in learning.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.accumulate()
    optimizer.step(1e-3)

    count = sum(p.numel() for p in learning.values())
    counters = 4 * len(learning)  # AdamW's own, one a tensor
    assert memory_by_part(model, optimizer) == {
        "weights": 2 * entries + positions,
        "adapter": count * (2 + 2 + 4 + 4),
        "optimizer": 2 * 4 * count + counters,
    }


def test_what_a_forward_pass_keeps_without_the_parameters():
    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8, 8))

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": (x @ self.weight).exp().sum()}  # keeps x for the weight, and exp's own result

    module = Square()
    assert saved_for_backward(module, torch.ones(100, 8)) == 2 * 100 * 8 * 4
    module.requires_grad_(False)
    assert saved_for_backward(module, torch.ones(100, 8)) == 0


def test_checkpointing_keeps_less_and_more_tokens_keep_more(make_model, make_rows):
    def kept(checkpointing: bool, rows: int) -> int:
        base = make_model()
        model = LoraAdaptation(TrainingConfig(r=4)).prepare(base, "tiny")
        if checkpointing:
            base.activation_checkpointing_enable({"use_reentrant": False})
        return saved_for_backward(ObjectiveModule(SftObjective(model, TrainingConfig())), pack(make_rows(rows)))

    assert kept(True, 8) < 0.5 * kept(False, 8)
    assert kept(False, 16) > 1.5 * kept(False, 8)
