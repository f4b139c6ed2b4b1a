"""Is a folder that somebody copied by hand whole?"""

import json
import struct
from pathlib import Path

import pytest

from app.implementations.models.contents import lacks, weights_digest
from app.utils.folders import seal


def weights(length: int = 8) -> bytes:
    header = json.dumps({"__metadata__": {}, "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, length]}})
    return struct.pack("<Q", len(header)) + header.encode() + bytes(length)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(weights())
    return tmp_path


def test_a_copy_without_a_manifest_counts(model: Path) -> None:
    assert lacks(model) is None


def test_what_is_absent_is_named(model: Path) -> None:
    for name in ("tokenizer.json", "model.safetensors"):
        (model / name).unlink()
    assert lacks(model) == "its folder lacks tokenizer.json, *.safetensors"
    assert lacks(model / "nowhere") == "it is not on this machine"


@pytest.mark.parametrize("torn", [b"", b"\1", weights()[:-1], weights() + b"\0", b"\xff" * 30, b"\2" + bytes(7)])
def test_half_copied_weights_do_not_count(model: Path, torn: bytes) -> None:
    (model / "model.safetensors").write_bytes(torn)
    assert lacks(model) == "its folder has half-copied weights: model.safetensors"


def test_every_shard_counts(model: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert lacks(model) == "its folder lacks model-2.safetensors"
    (model / "model.safetensors.index.json").write_text("[]")
    assert lacks(model) == "its model.safetensors.index.json cannot be read"


def test_another_s_manifest_is_passed_over(model: Path) -> None:
    (model / "manifest.json").write_text('{"layers": []}')
    assert lacks(model) is None
    seal(model, {})
    assert lacks(model) is None


def test_other_weights_have_another_digest_and_the_rest_of_the_folder_has_no_part_in_it(
    model: Path, tmp_path: Path
) -> None:
    file = model / "model.safetensors"
    large = bytearray(weights(3_000_000))
    file.write_bytes(large)
    before = weights_digest(model)
    (model / "config.json").write_text('{"more": 1}')
    assert weights_digest(model) == before
    trained = bytearray(large)
    for place in range(100, len(large), 50_000):  # here and there
        trained[place : place + 25_000] = b"\1" * len(trained[place : place + 25_000])
    file.write_bytes(trained)
    assert weights_digest(model) != before
    file.write_bytes(large)
    assert weights_digest(model) == before
    (model / "model-2.safetensors").write_bytes(weights())
    assert weights_digest(model) != before
