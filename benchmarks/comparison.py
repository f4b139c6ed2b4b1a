"""Trainers on the same rows, round by round: what each read, and what it comes to."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

from app.core.entities.training_config import KernelName
from benchmarks.arithmetic import Product, Spread, bound, markdown_table, ratios, shown, spread, step_products
from benchmarks.processes import say, tail
from benchmarks.spec import Answer, Settings, read_answer
from benchmarks.workbench import Data, Workbench, machine

KERNELS: tuple[str, ...] = get_args(KernelName)
GIGABYTE = 1e9


@dataclass(frozen=True, slots=True)
class Contestant:
    title: str
    module: str
    environment: str | None = None  # a peer's; this project's own otherwise
    options: tuple[str, ...] = ()
    kernels: str | tuple[str, ...] = "auto"


OURS = {"ours": Contestant("this trainer", "run_ours")}
PEERS = {
    "llamafactory": Contestant("LLaMA-Factory", "run_llamafactory", "llamafactory"),
    "trl": Contestant("TRL", "run_trl", "trl"),
    "trl-tuned": Contestant("TRL, tuned and packed", "run_trl", "trl", ("--tuned",)),
}
# This trainer without one of its kernels each, and without all.
ROADS = {
    **{
        f"without-{left_out}": Contestant(
            f"without {left_out}", "run_ours", kernels=tuple(name for name in KERNELS if name != left_out)
        )
        for left_out in KERNELS
    },
    "plain": Contestant("without any kernel", "run_ours", kernels="none"),
}
CONTESTANTS = OURS | PEERS | ROADS


@dataclass(slots=True)
class Reading:
    """One contestant in one round."""

    answer: Answer
    epochs: int
    process_seconds: float  # from its start to its end
    peak_bytes: int
    loss: float = float("nan")  # measured afterwards, for all of them in the same way

    @property
    def tokens_per_second(self) -> float:
        return self.answer.input_tokens / self.answer.train_runtime

    @property
    def last_epoch_tokens_per_second(self) -> float | None:
        """From the end of the last step of the epoch before; None where there was but one epoch."""
        ends = self.answer.step_ends
        if self.epochs == 1:
            return None
        return self.answer.input_tokens / self.epochs / (ends[-1] - ends[-1 - len(ends) // self.epochs])


class Comparison:
    """The rounds, and what was read in them. A contestant that fails once does not come again."""

    def __init__(self, bench: Workbench, data: Data, settings: Settings, pythons: Mapping[str, Path]) -> None:
        self.bench, self.data, self.settings, self.pythons = bench, data, settings, pythons
        self.step_tokens = round(data.input_tokens / data.rows * settings.batch_size)
        supervised = round(self.step_tokens * data.trained_tokens / data.input_tokens)
        self.products: list[Product] = step_products(bench.model_config(), self.step_tokens, supervised)
        self.flop_per_second: list[float] = []
        self.readings: dict[str, list[Reading]] = {name: [] for name in pythons}
        self.failed: dict[str, str] = {}
        self.base_loss = float("nan")

    def round(self, number: int) -> None:
        rate = self.bench.flop_per_second(f"matrix products {number}", self.products)
        self.flop_per_second.append(rate)
        say(f"round {number}: matrix products in bf16 at {rate / 1e12:.2f} TFLOP/s")
        for name in self.pythons:
            if name not in self.failed:
                self._run(name, number)

    def _run(self, name: str, number: int) -> None:
        contestant = CONTESTANTS[name]
        say(f"round {number}: {contestant.title}")
        command: list[str | Path] = [self.pythons[name], "-m", f"benchmarks.{contestant.module}"]
        settings = replace(self.settings, kernels=contestant.kernels)
        run = self.bench.train(f"{name} {number}", command, self.data, settings, contestant.options)
        if run.finished.status:
            self.failed[name] = f"status {run.finished.status}: {tail(run.log, 1)}"
            say(f"  failed with {self.failed[name]}\n  all of it: {run.log}")
            return
        answer = read_answer(run.spec)
        expected = self.settings.epochs * self.data.input_tokens
        if answer.input_tokens != expected:
            raise SystemExit(f"{contestant.title} read {answer.input_tokens} tokens, and not {expected}")
        reading = Reading(answer, self.settings.epochs, run.finished.seconds, run.finished.peak_bytes)
        self.readings[name].append(reading)
        say(f"  {reading.tokens_per_second:,.0f} tokens/s, {reading.peak_bytes / GIGABYTE:.1f} GB")

    def measure_losses(self) -> None:
        """Of every adapter; they are removed after it."""
        readings = [reading for kept in self.readings.values() for reading in kept]
        adapters = [reading.answer.adapter for reading in readings]
        say(f"losses of {len(adapters)} adapters")
        told = {"model": str(self.bench.model), "tokens": str(self.data.tokens), "adapters": adapters}
        found = self.bench.ask("losses", "measure_loss", told)
        self.base_loss = found["base"]
        for reading, loss in zip(readings, found["losses"], strict=True):
            reading.loss = loss
            shutil.rmtree(reading.answer.adapter)

    def bounds(self) -> list[float]:
        return [bound(self.products, self.step_tokens, rate) for rate in self.flop_per_second]

    def as_json(self) -> dict[str, object]:
        return {
            "machine": machine(self.bench.threads),
            "model": self.bench.model.name,
            "data": {
                "rows": self.data.rows,
                "longest_row": self.data.longest,
                "input_tokens": self.data.input_tokens,
                "trained_tokens": self.data.trained_tokens,
            },
            "settings": asdict(self.settings),
            "flop_per_second": self.flop_per_second,
            "bound_tokens_per_second": self.bounds(),
            "base_loss": self.base_loss,
            "failed": self.failed,
            "rounds": {
                name: [
                    {
                        **asdict(reading),
                        "tokens_per_second": reading.tokens_per_second,
                        "last_epoch_tokens_per_second": reading.last_epoch_tokens_per_second,
                    }
                    for reading in kept
                ]
                for name, kept in self.readings.items()
            },
        }

    def summary(self) -> str:
        """The machine and the bound in a line each, and a table: the middle of the rounds, and their range."""
        here, limit = machine(self.bench.threads), spread(self.bounds())
        head = (
            "trainer",
            "tokens/s",
            "last epoch",
            "of the bound",
            "peak GB",
            "whole process s",
            "loss",
            "this trainer is ×",
        )
        rows = [self._line(name, limit) for name, kept in self.readings.items() if kept]
        return "\n".join(
            [
                f"{self.bench.model.name}, {self.data.rows} rows, {self.data.input_tokens:,} tokens "
                f"({self.data.trained_tokens:,} the assistant's), {self.settings.epochs} epochs",
                f"{here['processor']}, {here['threads']} threads of {here['cores']} cores, "
                f"{here['memory_bytes'] / GIGABYTE:.0f} GB",
                f"bf16 matrix products of a step: {shown(spread(self.flop_per_second).scaled(1e-12), 2)} TFLOP/s, "
                f"a bound of {shown(limit)} tokens/s",
                f"loss before training {self.base_loss:.4f}",
                "",
                markdown_table(head, rows),
                *(f"\n{CONTESTANTS[name].title} failed: {why}" for name, why in self.failed.items()),
            ]
        )

    def _line(self, name: str, limit: Spread) -> Sequence[str]:
        kept = self.readings[name]
        speeds = [reading.tokens_per_second for reading in kept]
        last = [speed for reading in kept if (speed := reading.last_epoch_tokens_per_second) is not None]
        ours = [reading.tokens_per_second for reading in self.readings.get("ours", [])]
        return (
            CONTESTANTS[name].title,
            shown(spread(speeds)),
            shown(spread(last)) if last else "",
            f"{spread(speeds).median / limit.median:.0%}",
            f"{max(reading.peak_bytes for reading in kept) / GIGABYTE:.1f}",
            shown(spread([reading.process_seconds for reading in kept])),
            f"{spread([reading.loss for reading in kept]).median:.4f}",
            shown(ratios(ours, speeds), 2) if name != "ours" and len(ours) == len(speeds) else "",
        )
