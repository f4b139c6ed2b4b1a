"""Is a model's folder whole? Asked without torch, in a moment, of folders that people copied by hand too."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

from app.utils.folders import manifest_of

SAMPLES, SAMPLE_BYTES = 64, 4096  # of a file of weights


def lacks(folder: Path) -> str | None:
    """What is missing from a model's folder, in words for a person; None when it is whole."""
    if not folder.is_dir():
        return "it is not on this machine"
    if manifest_of(folder):
        return None
    absent = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    weights = sorted(folder.glob("*.safetensors"))
    try:
        expected = _shards(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its model.safetensors.index.json cannot be read"
    absent += sorted(expected - {file.name for file in weights})
    if not weights:
        absent.append("*.safetensors")
    if absent:
        return f"its folder lacks {', '.join(absent)}"
    if torn := [file.name for file in weights if not _is_whole(file)]:
        return f"its folder has half-copied weights: {', '.join(torn)}"
    return None


def weights_digest(folder: Path) -> str:
    """What tells these weights from others, in milliseconds: each file's length and header, and samples of it.

    A model that was trained further differs in nearly every number.
    """
    found = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            found.update(struct.pack("<QQ", size, length) + opened.read(min(length, size)))
            for number in range(SAMPLES):
                opened.seek(8 + length + (size - 8 - length) * number // SAMPLES)
                found.update(opened.read(SAMPLE_BYTES))
    return found.hexdigest()


def _shards(folder: Path) -> set[str]:
    index = folder / "model.safetensors.index.json"
    return set(json.loads(index.read_text("utf-8"))["weight_map"].values()) if index.exists() else set()


def _is_whole(file: Path) -> bool:
    """A safetensors file says how long it is: 8 bytes of header length, the header, then the tensors it names."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > file.stat().st_size:
                return False
            header = json.loads(opened.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return False
    return file.stat().st_size == 8 + length + max(ends, default=0)
