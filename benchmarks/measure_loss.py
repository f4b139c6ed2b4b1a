"""One loss for all, by plain transformers and PEFT: ``python -m benchmarks.measure_loss FILE``.

The file holds ``threads``, ``model``, ``tokens`` and ``adapters`` (folders). The answer, ``base`` and ``losses``,
goes to standard output as JSON: means over the labelled tokens of the rows, row by row without padding, logits in
float32.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.set_num_threads(told["threads"])
    rows = [json.loads(line) for line in Path(told["tokens"]).read_text("utf-8").splitlines()]
    base = AutoModelForCausalLM.from_pretrained(told["model"], dtype=torch.bfloat16, local_files_only=True)
    before = _mean_loss(base, rows)
    losses = []
    for number, adapter in enumerate(told["adapters"], start=1):
        print(f"adapter {number}/{len(told['adapters'])}", file=sys.stderr)
        adapted = PeftModel.from_pretrained(base, adapter)
        losses.append(_mean_loss(adapted, rows))
        base = adapted.unload()
    print(json.dumps({"base": before, "losses": losses}))


@torch.no_grad()
def _mean_loss(model: Any, rows: list[dict[str, list[int]]]) -> float:
    model.eval()
    total, count = 0.0, 0
    for row in rows:
        logits = model(input_ids=torch.tensor([row["input_ids"]]), use_cache=False).logits[0, :-1].float()
        targets = torch.tensor(row["labels"][1:])
        total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
        count += int((targets >= 0).sum())
    return total / count


if __name__ == "__main__":
    main()
