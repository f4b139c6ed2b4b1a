"""Each strategy on two gloo processes: the numbers of one process, in pieces where they should be."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from app.implementations.training.strategies.single import SingleProcess
from tests.unit.implementations.training.conftest import Listener, make_scenario
from tests.unit.implementations.training.rank import SCENARIOS, STOP_AT, scenario_config

ROOT = Path(__file__).parents[4]
PROCESSES = 2
TOLERANCE = {"lora": 2e-5, "full": 2e-5, "fused": 2e-5, "bf16": 2e-2}  # relative
CUT = ("fsdp-0", "deepspeed-3")


@pytest.fixture(scope="module", params=["ddp-0", "fsdp-0", "deepspeed-2", "deepspeed-3"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Any], Path]:
    """(strategy, what each rank found, the folder)."""
    name, stage = request.param.split("-")
    folder = tmp_path_factory.mktemp(request.param)
    ranks = []
    for rank in range(PROCESSES):
        with (folder / f"log-{rank}.txt").open("w") as log:
            words = [name, stage if stage != "0" else "2", str(rank), str(PROCESSES), str(folder)]
            ranks.append(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.unit.implementations.training.rank", *words],
                    cwd=ROOT,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                    stdout=log,
                    stderr=log,
                )
            )
    try:
        statuses = [process.wait(300) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    assert statuses == [0] * PROCESSES, (folder / "log-0.txt").read_text()[-4000:]
    return request.param, [torch.load(folder / f"rank-{rank}.pt") for rank in range(PROCESSES)], folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Listener, Any]]:
    config = scenario_config("single", 2, 1)
    found = {}
    for name, options in SCENARIOS.items():
        heard = Listener()
        loop = make_scenario(config, SingleProcess(), tmp_path_factory.mktemp("alone") / name, heard, **options)
        loop.run()
        found[name] = (heard, loop)
    return found


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_it_reaches_the_numbers_of_one_process(run, alone, scenario):
    _, ranks, _ = run
    heard, loop = alone[scenario]
    mine = ranks[0][scenario]

    assert [step["step"] for step in mine["steps"]] == [1, 2, 3, 4, 5, 6]
    for key in ("loss", "grad_norm", "learning_rate"):
        expected = [step[key] for step in heard.steps]
        assert [step[key] for step in mine["steps"]] == pytest.approx(expected, rel=TOLERANCE[scenario]), key
    expected = [event["eval_loss"] for event in heard.evaluations]
    assert [e["eval_loss"] for e in mine["evaluations"]] == pytest.approx(expected, rel=TOLERANCE[scenario])
    assert mine["tokens"] == sum(2 * row.tokens for row in loop.train_rows)
    if scenario != "bf16":
        for name, master in loop.optimizer.whole().items():
            torch.testing.assert_close(mine["weights"][name], master, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_run_that_was_stopped_goes_on_bit_for_bit(run, scenario):
    _, ranks, folder = run
    mine = ranks[0][scenario]

    assert [step["step"] for step in mine["resumed_steps"]] == [3, 4, 5, 6]
    assert [step["loss"] for step in mine["resumed_steps"]] == [step["loss"] for step in mine["steps"][STOP_AT:]]
    assert mine["weights"].keys() == mine["resumed_weights"].keys() != set()
    assert all(torch.equal(mine["weights"][name], mine["resumed_weights"][name]) for name in mine["weights"])
    assert len(list((folder / scenario / "whole").glob("step-*"))) == 2


def test_parameters_are_in_pieces_where_they_should_be(run):
    strategy, ranks, _ = run
    for name, (mine, whole) in ranks[0]["lora"]["pieces"].items():
        other, _ = ranks[1]["lora"]["pieces"][name]
        if strategy in CUT:
            assert mine < whole, name
            assert mine + other >= whole, name
        else:
            assert mine == other == whole, name


def test_rank_0_alone_is_given_what_is_whole(run):
    _, ranks, _ = run
    assert ranks[0]["full"]["weights"]
    assert ranks[1]["full"]["weights"] == {}


def test_one_that_says_so_is_enough(run):
    _, ranks, _ = run
    assert [found["lora"]["agreed"] for found in ranks] == [True, True]
