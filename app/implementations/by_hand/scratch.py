"""A base model that nobody has trained yet: TinyLLM's fresh weights and a tokenizer of the house's own words."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import yaml
from pydantic import Field, ValidationError

from app.core.entities.models import BaseModelSpec
from app.core.errors import Fault, Invalid
from app.implementations.by_hand.tiny_llm import TinyLLM, TinyLLMConfig
from app.implementations.data.formats import AlpacaFormat, MessagesFormat, PromptCompletionFormat, TextFormat
from app.implementations.data.store import FileDatasetStore
from app.implementations.models.sources import say
from app.implementations.models.tokenizer_files import CHATML, token_ids, write_tokenizer

_FORMATS = (MessagesFormat(), AlpacaFormat(), PromptCompletionFormat(), TextFormat())


class ScratchConfig(TinyLLMConfig):
    """What config/tiny_llm.yaml holds."""

    seed: int = Field(0, ge=0, lt=2**32)
    corpus: str = "data/raw/sample_data.json"  # rows whose text the tokenizer learns


def pull_from_scratch(spec: BaseModelSpec, target: Path) -> None:
    """Write a new model with fresh weights; ``location`` is a YAML with its sizes (config/tiny_llm.yaml)."""
    model = write_scratch_model(Path(spec.location), target)
    parameters = sum(weight.numel() for weight in model.parameters())
    say(f"{spec.name}: made {parameters:,} fresh parameters and {model.config.vocab_size:,} tokens")


def write_scratch_model(config_file: Path, target: Path) -> TinyLLM:
    """Weights, tokenizer, template and configs of a new model, the same for the same YAML and corpus.

    ``corpus`` is relative to the project, whose folder ``config/`` holds ``config_file``. ``Invalid`` with every
    faulty key, or the faults of the corpus.
    """
    config = read_scratch_config(config_file)
    texts = _training_texts(config_file.resolve().parent.parent / config.corpus, config.seed)
    tokenizer = write_tokenizer(CHATML, texts, target, vocabulary=config.vocab_size, context=config.context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = TinyLLM(config.model_copy(update={"vocab_size": tokenizer.get_vocab_size()}))
    model.save(target, **token_ids(CHATML, tokenizer))
    return model


def read_scratch_config(file: Path) -> ScratchConfig:
    """``Invalid`` names every faulty key, as tiny_llm.yaml.key."""
    try:
        return ScratchConfig.model_validate(yaml.safe_load(file.read_text("utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Invalid(f"{file.name}: cannot be read as YAML: {error}", code="invalid_config") from None
    except ValidationError as error:
        faults = [
            Fault(".".join([file.name, *map(str, e["loc"])]), e["type"], e["msg"])
            for e in error.errors(include_input=False, include_url=False)
            if e["type"] != "default_factory_not_called"  # follows from another fault
        ]
        raise Invalid("the sizes of the model have faults", code="invalid_config", faults=faults) from None


def _training_texts(corpus: Path, seed: int) -> list[str]:
    """Plain texts, and what was said, each message after its role as the template writes it.

    Rows that are held out from training stay unread.
    """
    with TemporaryDirectory() as folder:
        store = FileDatasetStore(Path(folder), _FORMATS, max_bytes=0)
        check = store.check(str(corpus), trusted=True)
        if check.faults:
            raise Invalid(f"{corpus.name} has faults", code="invalid_data", faults=check.faults)
        rows = list(store.rows(store.prepare(str(corpus), check.digest, seed, trusted=True), "train"))
    said = [f"{message['role']}\n{message['content']}" for row in rows for message in row.messages]
    return said + [row.text for row in rows if row.text is not None]
