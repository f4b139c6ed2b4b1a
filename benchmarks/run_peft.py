"""transformers' ``generate`` with PEFT's batches of mixed adapters: BASE ADAPTERS SEED THREADS."""

import random
import sys
import time
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from benchmarks.serving_plan import ADAPTERS, PROMPT, SCENARIOS, TOKENS, Scenario, prompts


def main() -> None:
    base, folder, seed, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).eval()
    plain.generation_config.eos_token_id = None
    chosen = [scenario for scenario in SCENARIOS if scenario.kind != "again"]
    for scenario in chosen:
        if not scenario.adapters:
            _generate(plain, scenario, seed, [])
            print(scenario.title, _generate(plain, scenario, seed, []), sep="\t", flush=True)
    adapted = PeftModel.from_pretrained(plain, Path(folder) / "a0", adapter_name="a0")
    for number in range(1, ADAPTERS):
        adapted.load_adapter(Path(folder) / f"a{number}", f"a{number}")
    adapted.to(torch.bfloat16).eval()
    for scenario in chosen:
        if scenario.adapters:
            print(scenario.title, _generate(adapted, scenario, seed, scenario.models()), sep="\t", flush=True)
    for scenario in SCENARIOS:
        if scenario.kind == "again":  # it keeps nothing: the second time is the first
            print(scenario.title, 1.0, sep="\t", flush=True)


@torch.inference_mode()
def _generate(model: torch.nn.Module, scenario: Scenario, seed: str, names: list[str]) -> float:
    draw = random.Random(f"{seed} {scenario.title}")  # noqa: S311  (no secret)
    ids = torch.tensor(prompts(draw, scenario))
    tokens = TOKENS if scenario.prompt == PROMPT else 1
    mixed = {"adapter_names": names} if names else {}
    started = time.perf_counter()
    made = model.generate(  # type: ignore[operator]
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        min_new_tokens=tokens,
        max_new_tokens=tokens,
        pad_token_id=0,
        **mixed,
    )
    seconds = time.perf_counter() - started
    assert made.shape[1] == scenario.prompt + tokens
    return scenario.streams * tokens / seconds if scenario.kind == "decode" else seconds


if __name__ == "__main__":
    main()
