"""This project's trainer, measured: ``python -m benchmarks.run_ours SPEC``."""

import logging
from collections.abc import Mapping
from pathlib import Path

from app.bootstrap import build_runner
from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import Reporter, TrainerJob
from benchmarks.spec import Answer, Spec, Stopwatch, answer, read_spec

NEVER = 1_000_000_000  # steps


class _StampingReporter(Reporter):
    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch

    def message(self, text: str, level: str = "info") -> None:
        logging.getLogger(__name__).info(text)

    def metrics(self, step: int, total_steps: int, figures: Mapping[str, float | None]) -> None:
        if "learning_rate" in figures:  # a training step's report
            self._stopwatch.step_ended(step, total_steps)

    def should_stop(self) -> bool:
        return False


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    spec = read_spec()
    stopwatch = Stopwatch(spec)
    run_folder = Path(spec.output)
    result = build_runner("torch").run(
        TrainerJob(
            job_id="benchmark",
            attempt=1,
            runner="torch",
            config=_config(spec),
            base_model_folder=Path(spec.model),
            dataset_folder=Path(spec.dataset),
            run_folder=run_folder,
            threads=spec.threads,
        ),
        _StampingReporter(stopwatch),
    )
    metrics = result["metrics"]
    answer(
        spec,
        Answer(
            train_runtime=metrics["train_runtime"],
            step_ends=stopwatch.step_ends,
            input_tokens=metrics["input_tokens"],
            trained_tokens=metrics["trained_tokens"],
            adapter=str(run_folder / "artifacts"),
            versions=metrics["versions"],
        ),
    )


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
            "batch_size": settings.batch_size,
            "num_epochs": settings.epochs,
            "save_steps": NEVER,  # the peers save none either
            "seed": settings.seed,
            "device": "cpu",
            "precision": "bf16",
        }
    )


if __name__ == "__main__":
    main()
