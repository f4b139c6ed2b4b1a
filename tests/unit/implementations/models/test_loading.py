"""What whoever loads a model may expect of every loader that is registered."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit

from app.core.interfaces.components import ModelLoader
from app.implementations.models.loading import loader_for
from app.registries import MODEL_LOADERS
from tests.serving_models import write_adapter, write_base

IDS = torch.tensor([[5, 17, 300, 42]])
LABELS = ("hours", "returns")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_base(folder / "base")
    write_adapter(folder / "base", folder / "adapter", seed=1, task_type=None)  # over a model of any task
    return folder


@pytest.fixture(params=list(MODEL_LOADERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load(name: str, folder: Path, **options: Any) -> Any:
    loader: ModelLoader = MODEL_LOADERS.create(name, labels=LABELS if name == "classifier" else (), device=CPU)
    torch.manual_seed(0)  # of a head that the folder lacks
    return loader.load(folder, torch.float32, **options).eval()


@torch.inference_mode()
def scores(model: Any) -> torch.Tensor:
    found = model(IDS)
    return found if isinstance(found, torch.Tensor) else found.logits


def test_the_weights_of_the_folder_are_frozen(name: str, place: Path) -> None:
    model = load(name, place / "base")
    learning = {parameter for parameter, weight in model.named_parameters() if weight.requires_grad}
    assert learning == ({"score.weight"} if name == "classifier" else set())
    assert next(model.parameters()).dtype == torch.float32


def test_the_same_folder_gives_the_same_model(name: str, place: Path) -> None:
    assert torch.equal(scores(load(name, place / "base")), scores(load(name, place / "base")))


def test_an_adapter_is_laid_over_it(name: str, place: Path) -> None:
    plain = scores(load(name, place / "base"))
    adapted = load(name, place / "base", adapter=place / "adapter")
    assert not torch.allclose(scores(adapted), plain, atol=0.1)


def test_the_loaders_of_one_model_agree(place: Path) -> None:
    names = ("causal", "by_hand", "quantised")
    causal, by_hand, quantised = (scores(load(name, place / "base", adapter=place / "adapter")) for name in names)
    torch.testing.assert_close(by_hand, causal, atol=1e-4, rtol=1e-4)
    assert (
        torch.nn.functional.cosine_similarity(quantised.flatten(), causal.flatten(), dim=0) > 0.7
    )  # of random weights


def test_no_pickle_is_opened(name: str, place: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((place / "base" / "config.json").read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"safetensors|Missing key"):
        load(name, tmp_path)


def test_the_config_chooses_the_loader(place: Path) -> None:
    chosen = [
        loader_for(quantised, labels, CPU).load(place / "base", torch.float32)
        for quantised in (False, True)
        for labels in ((), LABELS)
    ]
    assert [type(model).__name__ for model in chosen] == [
        "LlamaForCausalLM",
        "LlamaForSequenceClassification",
    ] * 2
    packed = [any(isinstance(module, Linear4bit) for module in model.modules()) for model in chosen]
    assert packed == [False, False, True, True]
    assert chosen[1].config.id2label == dict(enumerate(LABELS))
