"""What a spare trainer does before its job; that a run comes out the same is test_spare.py's."""

import gc
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from app.core.entities.models import BaseModelSpec
from app.implementations.data import plain_text
from app.implementations.data.encoder_tokenizer import load_tokenizer
from app.implementations.training.preparation import LATE_IMPORTS, prepare
from app.registries import BASE_MODEL_SOURCES


@pytest.fixture(autouse=True)
def thaw() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.mark.parametrize("name", LATE_IMPORTS)
def test_what_is_imported_early_is_there(name: str) -> None:
    assert find_spec(name)


def test_the_tokenizer_is_parsed_once_and_what_is_loaded_is_no_work_for_the_collector(tmp_path: Path) -> None:
    BASE_MODEL_SOURCES.load("random")(BaseModelSpec("tiny", "random", "llama"), tmp_path)
    prepare(tmp_path)
    assert gc.get_freeze_count() > 100_000
    before = plain_text._parsed.cache_info()
    load_tokenizer(tmp_path)
    after = plain_text._parsed.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)


def test_another_tokenizer_in_the_same_place_is_read_anew(tmp_path: Path) -> None:
    BASE_MODEL_SOURCES.load("random")(BaseModelSpec("tiny", "random", "llama"), tmp_path)
    file = tmp_path / "tokenizer.json"
    before = plain_text.read_tokenizer(tmp_path)
    assert plain_text.read_tokenizer(tmp_path) is before
    changed = Tokenizer.from_file(str(file))
    changed.add_tokens(["a-new-word"])
    changed.save(str(file))
    assert before.token_to_id("a-new-word") is None
    assert plain_text.read_tokenizer(tmp_path).token_to_id("a-new-word") is not None


def test_a_damaged_base_model_is_left_to_the_job(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    prepare(tmp_path)
    prepare(tmp_path / "nowhere")
    prepare(None)
    assert gc.get_freeze_count() > 0
