"""This project's trainer, measured: ``python -m benchmarks.run_ours SPEC``.

Where several processes train together, this one starts the others: ``SPEC RANK``.
"""

import logging
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from app.bootstrap import build_trainer
from app.core.entities.trainer import ALONE, Placement
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import Reporter, TrainerJob
from benchmarks.spec import Answer, Spec, Stopwatch, answer, read_spec

NEVER = 1_000_000_000  # steps


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    spec = read_spec()
    rank = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    stopwatch = Stopwatch(spec)
    job = TrainerJob(
        job_id="benchmark",
        attempt=1,
        runner="torch",
        config=_config(spec),
        base_model_folder=Path(spec.model),
        dataset_folder=Path(spec.dataset),
        run_folder=Path(spec.output),
        threads=max(1, spec.threads // spec.settings.processes),
        placement=_placement(spec, rank),
    )
    with _others(spec, rank):
        result = build_trainer("torch").run(job, _StampingReporter(stopwatch))
    if rank == 0:
        metrics = result["metrics"]
        answer(
            spec,
            Answer(
                train_runtime=metrics["train_runtime"],
                step_ends=stopwatch.step_ends,
                input_tokens=metrics["input_tokens"],
                trained_tokens=metrics["trained_tokens"],
                adapter=str(job.run_folder / "artifacts"),
                versions=metrics["versions"],
            ),
        )


class _StampingReporter(Reporter):
    """The reports of a training step are stamped: only rank 0 gives any."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch

    def message(self, text: str, level: str = "info") -> None:
        logging.getLogger(__name__).info(text)

    def metrics(self, step: int, total_steps: int, figures: Mapping[str, float | None]) -> None:
        if "learning_rate" in figures:
            self._stopwatch.step_ended(step, total_steps)

    def should_stop(self) -> bool:
        return False


def _placement(spec: Spec, rank: int) -> Placement:
    if spec.settings.processes == 1:
        return ALONE
    return Placement(rank, spec.settings.processes, rank, f"file://{Path(spec.output) / 'rendezvous'}")


@contextmanager
def _others(spec: Spec, rank: int) -> Iterator[None]:
    """The ranks that rank 0 starts; none is left behind."""
    command = [sys.executable, "-m", "benchmarks.run_ours", sys.argv[1]]
    ranks = range(1, spec.settings.processes) if rank == 0 else ()
    started = [subprocess.Popen([*command, str(other)]) for other in ranks]
    try:
        yield
        for process in started:
            process.wait()
    finally:
        for process in started:
            process.kill()


def _config(spec: Spec) -> TrainingConfig:
    settings = spec.settings
    return TrainingConfig.model_validate(
        {
            "base_model": Path(spec.model).name,
            "lora": {"r": settings.lora_rank, "lora_alpha": settings.lora_alpha, "target_modules": "all-linear"},
            "max_length": settings.max_length,
            "learning_rate": settings.learning_rate,
            "lr_schedule": settings.schedule,
            "warmup_steps": 0,
            "max_grad_norm": settings.max_grad_norm,
            "batch_size": settings.batch_size // settings.processes,
            "num_epochs": settings.epochs,
            "save_steps": NEVER,  # the peers neither save nor report to anything
            "report_to": "none",
            "seed": settings.seed,
            "kernels": settings.kernels,
            "strategy": settings.strategy,
            "processes": settings.processes,
            "device": "cpu",
            "precision": "bf16",
        }
    )


if __name__ == "__main__":
    main()
