"""Packed pairs against the formula over plain transformers and against TRL; the reference kept for a resume."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import logsigmoid

from app.core.entities.datasets import IGNORED
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import TrainingStopped
from app.implementations.models.random_model import write_random_tokenizer
from app.implementations.training.adaptations.lora import LoraAdaptation, trainable
from app.implementations.training.batches import pack
from app.implementations.training.objective_module import ObjectiveModule
from app.implementations.training.objectives.dpo import DpoObjective
from app.implementations.training.strategies.single import SingleProcess

BETA = 0.3
READ_FROM_TRL = {"loss": 0.7007251, "accuracy": 0.6666667, "margin": -0.0099329}
CPU = torch.device("cpu")


def adapted(make_model, attention="packed", dtype=torch.float64):
    return LoraAdaptation(TrainingConfig(r=4)).prepare(make_model(attention, dtype), "tiny")


def move(model, seed=3):
    """As training would: away from where it began."""
    torch.manual_seed(seed)
    for parameter in trainable(model).values():
        parameter.data.normal_(std=0.3)


def prepared(model, rows, folder, report, **config):
    objective = DpoObjective(model, TrainingConfig(**{"dpo_beta": BETA, "batch_size": 4, **config}))
    objective.prepare(ObjectiveModule(objective), SingleProcess(), rows, CPU, folder, report)
    return objective


def plain_log_probability(model, sequence):
    """The sum over an answer's tokens of transformers' own logits, one unpadded sequence at a time."""
    logits = model(input_ids=torch.tensor([sequence.input_ids]), use_cache=False).logits[0, :-1]
    targets = torch.tensor(sequence.labels[1:])
    answer = targets != IGNORED
    return logits.log_softmax(-1)[answer].gather(1, targets[answer, None]).sum()


def test_loss_figures_and_gradients_equal_the_formula(make_model, make_pairs, listener, tmp_path):
    rows = make_pairs(6)
    model, plain = adapted(make_model), adapted(make_model, "eager")
    objective = prepared(model, rows, tmp_path, listener())
    with torch.no_grad():
        before = [[plain_log_probability(plain, s).item() for s in (row, row.rejected)] for row in rows]
    move(model)
    move(plain)

    sums = objective(pack(rows))
    (sums["loss"] / len(rows)).backward()
    sums["loss"] = sums["loss"].detach()
    margins = torch.stack(
        [
            BETA
            * ((plain_log_probability(plain, row) - chosen) - (plain_log_probability(plain, row.rejected) - other))
            for row, (chosen, other) in zip(rows, before, strict=True)
        ]
    )
    expected = -logsigmoid(margins).mean()
    expected.backward()

    figures = objective.figures(sums, sum(map(objective.weight, rows)))
    assert figures["loss"] == pytest.approx(expected.item(), abs=1e-6)  # the reference is kept in float32
    assert figures["margin"] == pytest.approx(margins.mean().item(), abs=1e-6)
    assert figures["accuracy"] == (margins > 0).double().mean().item()
    assert 0 < figures["accuracy"] < 1
    reference = trainable(plain)
    for name, parameter in trainable(model).items():
        error = (parameter.grad - reference[name].grad).norm() / reference[name].grad.norm()
        assert error < 1e-5, name


def moved_in_float32(make_model, attention="packed"):
    """The tiny model, full, away from its start by what every machine draws alike."""
    model = make_model(attention)
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        parameter.data += 0.03 * torch.randn(parameter.shape, generator=generator)
    return model


def figures_in_float32(make_model, rows, folder, report):
    objective = prepared(make_model(), rows, folder, report)
    with torch.no_grad():
        objective.model = moved_in_float32(make_model)
        return objective.figures(objective(pack(rows)), len(rows))


def test_it_gives_what_trl_gave(make_model, make_pairs, listener, tmp_path):
    """Read from TRL 1.16.0, its DPOTrainer.compute_loss, by the test below: the same rows and weights."""
    figures = figures_in_float32(make_model, make_pairs(6), tmp_path, listener())

    assert figures == pytest.approx(READ_FROM_TRL, abs=1e-5)


@pytest.mark.filterwarnings("ignore")  # of TRL and of what it imports
def test_trl_says_the_same(make_model, make_pairs, listener, tmp_path):
    """TRL is no dependency: where it can be imported, it computes the loss with a reference model of its own."""
    trl = pytest.importorskip("trl", reason="trl is not installed: pip install trl==1.16.0 elsewhere to compare")
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    rows = make_pairs(6)
    write_random_tokenizer("llama", tmp_path)  # that TRL wants one; the rows are token ids already
    settings = trl.DPOConfig(
        str(tmp_path), beta=BETA, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none"
    )
    trainer = trl.DPOTrainer(
        moved_in_float32(make_model, "eager"),
        make_model("eager"),
        settings,
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=PreTrainedTokenizerFast.from_pretrained(tmp_path),
    )
    batch = DataCollatorForPreference(pad_token_id=0)([split_at_prompt(row) for row in rows])
    loss = trainer.compute_loss(trainer.model, batch)
    said = {name: values[-1] for name, values in trainer._metrics["train"].items()}
    read = {"loss": loss.item(), "accuracy": said["rewards/accuracies"], "margin": said["rewards/margins"]}

    assert figures_in_float32(make_model, rows, tmp_path / "ours", listener()) == pytest.approx(read, abs=1e-5)
    assert read == pytest.approx(READ_FROM_TRL, abs=1e-5)


def split_at_prompt(row):
    length = sum(label == IGNORED for label in row.labels)
    return {
        "prompt_ids": row.input_ids[:length],
        "chosen_ids": row.input_ids[length:],
        "rejected_ids": row.rejected.input_ids[length:],
    }


def test_it_begins_at_the_reference(make_model, make_pairs, listener, tmp_path):
    rows = make_pairs(5)
    sums = prepared(adapted(make_model), rows, tmp_path, listener())(pack(rows))

    assert sums["loss"].item() / 5 == pytest.approx(math.log(2), abs=1e-6)
    assert sums["margin"].item() == pytest.approx(0, abs=1e-6)


def test_a_resumed_run_has_the_very_same_reference(make_model, make_pairs, listener, tmp_path):
    """And not that of the model as it is by then."""
    rows = make_pairs(5)
    model = adapted(make_model)
    first = prepared(model, rows, tmp_path, listener())
    move(model)
    heard = listener()
    again = prepared(model, rows, tmp_path, heard)

    assert again.reference == first.reference
    assert heard.messages == []


@pytest.mark.parametrize("harm", ["flip a bit", "cut off", "other rows"])
def test_a_reference_that_is_not_of_these_rows_is_computed_anew(make_model, make_pairs, listener, tmp_path, harm):
    rows = make_pairs(5)
    model = adapted(make_model)
    first = prepared(model, make_pairs(5, seed=9) if harm == "other rows" else rows, tmp_path, listener())
    file = tmp_path / "reference" / "reference.safetensors"
    content = bytearray(file.read_bytes())
    if harm == "flip a bit":
        content[-1] ^= 1
        file.write_bytes(content)
    elif harm == "cut off":
        file.write_bytes(content[:-4])
    again = prepared(model, rows, tmp_path, listener())

    assert (again.reference == first.reference) is (harm != "other rows")
    assert prepared(model, rows, tmp_path, listener()).reference == again.reference
    assert again.reference == prepared(model, rows, tmp_path / "elsewhere", listener()).reference


def test_processes_share_the_scoring(make_model, make_pairs, listener, tmp_path):
    """Five pairs in batches of two are three batches: rank 1 has one, and computes one for nothing."""
    rows = make_pairs(5)
    objective = DpoObjective(adapted(make_model), TrainingConfig(batch_size=2))
    module = ObjectiveModule(objective)
    shares = []
    for rank in (0, 1):
        strategy = SimpleNamespace(rank=rank, processes=2, agree=lambda flag: flag)
        shares.append(objective._score(module, strategy, rows, CPU, listener()))
    alone = objective._score(module, SingleProcess(), rows, CPU, listener())

    assert torch.equal(shares[0] + shares[1], alone)
    assert [bool(share.all(1)[row]) for share in shares for row in (0, 2, 4)] == [
        True,
        False,
        True,
        False,
        True,
        False,
    ]


def test_it_stops_when_asked_to(make_model, make_pairs, listener, tmp_path):
    with pytest.raises(TrainingStopped):
        prepared(adapted(make_model), make_pairs(5), tmp_path, listener(stop_at=0))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_does_not_end_the_run(make_model, make_pairs, listener, small_disk):
    small_disk.fill(0)
    heard = listener()
    objective = prepared(adapted(make_model), make_pairs(5), small_disk.folder, heard)
    small_disk.clear()

    assert len(objective.reference) == 5
    assert heard.messages[-1].startswith("the disk is full")
    assert list(small_disk.folder.iterdir()) == []


def test_training_widens_the_margin(make_loop, listener):
    heard = listener()
    make_loop(heard, objective="dpo", num_epochs=8).run()

    first, last = heard.steps[0], heard.steps[-1]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert last["loss"] < first["loss"]
    assert last["margin"] > first["margin"]
    assert heard.evaluations[-1].keys() >= {"eval_loss", "eval_accuracy", "eval_margin"}
    assert "perplexity" not in heard.evaluations[-1]
