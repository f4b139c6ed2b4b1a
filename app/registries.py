"""The names that users choose in configs and commands, each with the class that implements it.

Classes are named as ``"module:Class"`` strings and imported when first built, so that a process loads only what it
uses; the web process never loads torch. The tables of parts, filled here, are those of ``app/core/factories.py``,
which says what a part is: a new one is one file and one line below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.core.factories import (
    ADAPTATIONS,
    DATA_FORMATS,
    DATA_PROCESSORS,
    MODEL_LOADERS,
    OBJECTIVES,
    STRATEGIES,
    TRACKERS,
    ComponentFactory,
)

if TYPE_CHECKING:
    from app.core.interfaces.components import TrainingRunner

DATA_FORMATS.add(
    {
        "messages": "app.implementations.data.formats:MessagesFormat",
        "alpaca": "app.implementations.data.formats:AlpacaFormat",
        "prompt_completion": "app.implementations.data.formats:PromptCompletionFormat",
        "preference": "app.implementations.data.formats:PreferenceFormat",
        "openai_preference": "app.implementations.data.formats:OpenAiPreferenceFormat",
        "text": "app.implementations.data.formats:TextFormat",
        "labelled": "app.implementations.data.formats:LabelledFormat",
        "sharegpt": "app.implementations.data.chat_formats:ShareGptFormat",
        "chatml": "app.implementations.data.chat_formats:ChatMlFormat",
    },
)
BASE_MODEL_SOURCES = ComponentFactory[Any](
    "base model source",
    {
        "hub": "app.implementations.models.sources:pull_from_hub",
        "package": "app.implementations.models.sources:pull_from_package",
        "folder": "app.implementations.models.sources:pull_from_folder",
        "random": "app.implementations.models.sources:pull_random",
        "scratch": "app.implementations.by_hand.scratch:pull_from_scratch",
    },
)
RUNNERS: ComponentFactory[TrainingRunner] = ComponentFactory(
    "trainer",
    {
        "torch": "app.implementations.training.runner:TorchRunner",
        "torch-forecast": "app.implementations.training.runner:TorchRunner",
        "double": "app.implementations.training.double:ScriptedRunner",
        "double-forecast": "app.implementations.training.double:ScriptedForecast",
    },
)
OBJECTIVES.add(
    {
        "sft": "app.implementations.training.objectives.sft:SftObjective",
        "dpo": "app.implementations.training.objectives.dpo:DpoObjective",
        "pretrain": "app.implementations.training.objectives.pretrain:PretrainObjective",
        "classification": "app.implementations.training.objectives.classification:ClassificationObjective",
    },
)
ADAPTATIONS.add(
    {
        "full": "app.implementations.training.adaptations.full:FullAdaptation",
        "lora": "app.implementations.training.adaptations.lora:LoraAdaptation",
        "lora_linear": "app.implementations.training.adaptations.lora_linear:LoraLinearAdaptation",
        "qlora": "app.implementations.training.adaptations.qlora:QloraAdaptation",
    },
)
STRATEGIES.add(
    {
        "single": "app.implementations.training.strategies.single:SingleProcess",
        "ddp": "app.implementations.training.strategies.ddp:DataParallel",
        "deepspeed": "app.implementations.training.strategies.deepspeed:DeepSpeed",
        "fsdp": "app.implementations.training.strategies.fsdp:FullySharded",
    },
)
TRACKERS.add(
    {
        "tensorboard": "app.implementations.training.trackers.tensorboard:TensorBoardTracker",
        "mlflow": "app.implementations.training.trackers.mlflow:MlflowTracker",
        "wandb": "app.implementations.training.trackers.wandb:WandbTracker",
    },
)
DATA_PROCESSORS.add(
    {
        "convert": "app.implementations.data.conversion:ConvertRows",
        "clean": "app.core.processors.cleaning:CleanRows",
        "split": "app.implementations.data.split_rows:SplitRows",
        "augment": "app.implementations.data.augmentation:AugmentRows",
    }
)
MODEL_LOADERS.add(
    {
        "causal": "app.implementations.models.loading:CausalLoader",
        "classifier": "app.implementations.models.loading:ClassifierLoader",
        "quantised": "app.implementations.models.loading:QuantisedLoader",
        "by_hand": "app.implementations.by_hand.language_model:ByHandLoader",
    }
)
FACTORIES = (
    DATA_FORMATS,
    BASE_MODEL_SOURCES,
    RUNNERS,
    OBJECTIVES,
    ADAPTATIONS,
    STRATEGIES,
    TRACKERS,
    DATA_PROCESSORS,
    MODEL_LOADERS,
)
