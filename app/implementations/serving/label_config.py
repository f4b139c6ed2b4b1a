"""Whether a model folder has a label head, and for which labels."""

import json
from collections.abc import Sequence
from pathlib import Path

HEADED = "ForSequenceClassification"  # how transformers names such architectures


def head_labels(folder: Path) -> Sequence[str]:
    """In the order of the head's rows, as config.json names them; none: the model writes text."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except FileNotFoundError:  # an adapter of a model that writes text
        return []
    if not any(name.endswith(HEADED) for name in config.get("architectures") or ()):
        return []
    return [label for _, label in sorted(config["id2label"].items(), key=lambda item: int(item[0]))]
