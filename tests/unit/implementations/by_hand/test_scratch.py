"""A new model from a YAML: whole, the same each time, and one that the rest of the project takes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.core.errors import Invalid
from app.implementations.by_hand.scratch import read_scratch_config, write_scratch_model
from app.implementations.by_hand.tiny_llm import TinyLLM, TinyLLMConfig
from app.implementations.models.base_models import FolderBaseModelStore
from app.implementations.serving.loading import load_model
from app.implementations.serving.model import Chunk
from app.registries import BASE_MODEL_SOURCES

ROOT = Path(__file__).parents[4]
SMALL = {"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "vocab_size": 300, "context": 64}
ROWS = [
    {
        "messages": [
            {"role": "user", "content": "When does the shop open?"},
            {"role": "assistant", "content": "The shop opens at nine, 早上九点."},
        ],
        "split": "train",
    },
    {"instruction": "When does the shop close?", "output": "The shop closes at five.", "split": "train"},
    {"text": "shop shop shop", "split": "train"},
    {"prompt": "zzzzzzzz", "completion": "zzzzzzzz", "split": "test"},
]


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., Path]:
    """Writes config/tiny.yaml beside a corpus."""

    def write(rows: Any = ROWS, **changes: Any) -> Path:
        (tmp_path / "config").mkdir(exist_ok=True)
        (tmp_path / "rows.json").write_text(json.dumps(rows))
        file = tmp_path / "config" / "tiny.yaml"
        file.write_text(yaml.safe_dump({**SMALL, "corpus": "rows.json", **changes}))
        return file

    return write


def made(config: Path, folder: Path) -> Path:
    folder.mkdir()
    write_scratch_model(config, folder)
    return folder


def test_the_project_s_own_sizes_are_the_defaults() -> None:
    config = read_scratch_config(ROOT / "config/tiny_llm.yaml")
    assert TinyLLMConfig.model_fields.keys() - config.model_fields_set == {"rope_theta", "norm_eps", "tied"}
    assert config == type(config)()
    assert (ROOT / config.corpus).is_file()


def test_it_is_pulled_by_its_name(config: Callable[..., Path], tmp_path: Path) -> None:
    config()
    catalogue = tmp_path / "config" / "base_models.yaml"
    catalogue.write_text(yaml.safe_dump({"new": {"source": "scratch", "location": "config/tiny.yaml"}}))
    bases = FolderBaseModelStore(catalogue, tmp_path / "base", BASE_MODEL_SOURCES)
    folder = bases.pull("new")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.vocab_size == model.get_input_embeddings().num_embeddings == 300
    assert model.config.max_position_embeddings == 64
    tokenizer = bases.tokenizer("new")
    assert list(tokenizer.stop_token_ids) == [model.generation_config.eos_token_id]
    text = "Grüße aus Köln, 早上九点 <b>"
    assert AutoTokenizer.from_pretrained(folder).decode(tokenizer.encode_prompt([
        {"role": "user", "content": text}
    ])) == f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"  # fmt: skip


def test_the_same_for_the_same_yaml_and_another_for_another_seed(
    config: Callable[..., Path], tmp_path: Path
) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again = made(config(), tmp_path / "a"), made(config(), tmp_path / "b")
    assert torch.get_rng_state().equal(before)
    for file in first.iterdir():
        assert file.read_bytes() == (again / file.name).read_bytes(), file.name
    other = made(config(seed=1), tmp_path / "c")
    assert (first / "tokenizer.json").read_bytes() == (other / "tokenizer.json").read_bytes()
    assert not TinyLLM.load(first).lm_head.weight.equal(TinyLLM.load(other).lm_head.weight)


def test_the_tokenizer_learns_from_training_rows_alone(config: Callable[..., Path], tmp_path: Path) -> None:
    known = json.loads((made(config(), tmp_path / "a") / "tokenizer.json").read_text())["model"]["vocab"]
    assert {"Ġshop", "assistant"} <= known.keys()
    assert "zz" not in known


def test_the_vocabulary_is_as_large_as_the_corpus_allows(config: Callable[..., Path], tmp_path: Path) -> None:
    folder = made(config(vocab_size=50_000), tmp_path / "a")
    size = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    assert 259 < size < 500
    assert TinyLLM.load(folder).config.vocab_size == size


def test_the_engine_s_step_is_the_model_s(config: Callable[..., Path], tmp_path: Path) -> None:
    folder = made(config(), tmp_path / "a")
    engine, ids = load_model(folder, "fp32", kv_bytes=2**26, kernels=None), [1, 7, 30, 200]
    expected = TinyLLM.load(folder)(torch.tensor([ids]))[0, -1]
    cache = engine.new_cache()
    engine.reserve(cache, len(ids))
    (logits,) = engine.step([Chunk(ids, cache, None, last=True)])
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert (engine.context, engine.vocabulary) == (64, 300)


def test_every_faulty_key_is_named(config: Callable[..., Path]) -> None:
    with pytest.raises(Invalid) as caught:
        read_scratch_config(config(layers="many", depth=3))
    assert sorted(fault.where for fault in caught.value.faults) == ["tiny.yaml.depth", "tiny.yaml.layers"]
    with pytest.raises(Invalid) as caught:
        read_scratch_config(config(heads=5))
    assert "multiple of 2 × heads" in caught.value.faults[0].message


def test_a_yaml_or_a_corpus_that_cannot_be_read(config: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"nowhere\.yaml: cannot be read"):
        read_scratch_config(tmp_path / "nowhere.yaml")
    with pytest.raises(Invalid, match="no such file"):
        made(config(corpus="nowhere.json"), tmp_path / "a")
    with pytest.raises(Invalid, match=r"rows\.json has faults") as caught:
        made(config(rows=[{"messages": []}, {"word": "x"}]), tmp_path / "b")
    assert [fault.where.partition(":")[0] for fault in caught.value.faults] == ["row 1", "row 2"]
