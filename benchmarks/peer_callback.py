"""What is read out of transformers' ``Trainer``, which both peers run on."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from benchmarks.spec import Answer, Spec, Stopwatch, answer


def adapter_folder(spec: Spec) -> Path:
    """The peers' ``output_dir``."""
    return Path(spec.output) / "adapter"


class Measuring(TrainerCallback):
    """Counts the tokens of the trainer's own data set, stamps its steps and takes its own ``train_runtime``."""

    def __init__(self, spec: Spec, *packages: str) -> None:
        self._spec = spec
        self._stopwatch = Stopwatch(spec)
        self._packages = ("torch", "transformers", "peft", *packages)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        rows = kwargs["train_dataloader"].dataset
        self._input_tokens = sum(map(len, rows["input_ids"]))
        self._trained_tokens = sum(label >= 0 for labels in rows["labels"] for label in labels[1:])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._stopwatch.step_ended(state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if "train_runtime" in kwargs["logs"]:
            self._train_runtime = float(kwargs["logs"]["train_runtime"])

    def answer(self) -> None:
        epochs = self._spec.settings.epochs
        answer(
            self._spec,
            Answer(
                train_runtime=self._train_runtime,
                step_ends=self._stopwatch.step_ends,
                input_tokens=self._input_tokens * epochs,
                trained_tokens=self._trained_tokens * epochs,
                adapter=str(adapter_folder(self._spec)),
                versions={name: version(name) for name in self._packages},
            ),
        )
