"""What an engine's precision changes: ``python -m benchmarks.perplexity``.

The perplexity of the sample data's test conversations as the base model's template writes them, by the engine's
own code, token by token as it decodes; and the memory of the process after loading.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
from collections.abc import Sequence

import torch

from app.bootstrap import build_base_models, load_settings
from app.implementations.models.devices import held_memory_bytes
from app.implementations.serving.loading import load_model
from app.implementations.serving.messages import Precision
from app.implementations.serving.model import Chunk, ServedModel
from benchmarks.arithmetic import markdown_table
from benchmarks.processes import ROOT, say

MODEL = "smollm2-135m-instruct"
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8", "nf4")
TOGETHER = 16  # conversations in a pass
ROWS = ROOT / "data" / "raw" / "sample_data.json"


def main() -> None:
    options = _options()
    rows = []
    for precision in options.only:
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # its memory is its own
            loss, tokens, held = pool.apply(measure, (options.model, precision, options.conversations))
        say(f"{precision}: {math.exp(loss):.3f}")
        rows.append([precision, f"{math.exp(loss):.3f}", f"{loss:.4f}", str(tokens), f"{held / 1e6:.0f}"])
    print(markdown_table(["", "perplexity", "loss", "tokens", "MB"], rows))


def measure(model: str, precision: Precision, conversations: int) -> tuple[float, int, int]:
    """Mean loss of a token, tokens, and bytes held once the model is loaded."""
    settings = load_settings()
    bases = build_base_models(settings)
    tokenizer = bases.tokenizer(model)
    kept = [row["messages"] for row in json.loads(ROWS.read_text("utf-8")) if row["split"] == "test"]
    texts = [tokenizer.encode_training(messages, None).input_ids for messages in kept[:conversations]]
    engine = load_model(bases.folder(model), precision, 2**30, settings.instance_dir / "kernels")
    held = held_memory_bytes(torch.device("cpu"))
    losses: list[float] = []
    for start in range(0, len(texts), TOGETHER):
        losses += _losses(engine, texts[start : start + TOGETHER])
    return sum(losses) / len(losses), len(losses), held


def _losses(engine: ServedModel, texts: Sequence[Sequence[int]]) -> list[float]:
    """Of every token but the first of each text."""
    caches = [engine.new_cache() for _ in texts]
    found: list[float] = []
    for place in range(max(map(len, texts)) - 1):
        reading = [(cache, text) for cache, text in zip(caches, texts, strict=True) if place + 1 < len(text)]
        for cache, _ in reading:
            engine.reserve(cache, 1)
        logits = engine.step([Chunk([text[place]], cache, None, True) for cache, text in reading])
        wanted = torch.tensor([text[place + 1] for _, text in reading])
        found += torch.nn.functional.cross_entropy(logits, wanted, reduction="none").tolist()
    for cache in caches:
        engine.release(cache)
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.perplexity", description=__doc__)
    parser.add_argument("--model", default=MODEL, help="a name in config/base_models.yaml")
    parser.add_argument("--conversations", type=int, default=148)
    parser.add_argument("--only", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
