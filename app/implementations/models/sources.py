"""Where base models come from. Each function fills ``target`` and says on standard error what it does.

Weights are read from safetensors and, from a package, GGUF; no code that came with a model is ever run.
"""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from app.core.entities.models import BaseModelSpec
from app.implementations.models.contents import lacks
from app.implementations.models.missing import missing
from app.implementations.models.random_model import write_random_model

HUB_FILES = ["*.safetensors", "*.json", "*.jinja"]
_HUB_ANSWER_SECONDS = 3.0


def pull_from_hub(spec: BaseModelSpec, target: Path) -> None:
    """Download a repository's safetensors, JSON and template; goes on where an earlier download was cut off.

    A hub that cannot be reached, or ``HF_HUB_OFFLINE=1``, is an ``Unavailable`` in five seconds.
    """
    from huggingface_hub import snapshot_download

    revision = _hub_revision(spec)
    say(f"{spec.name}: downloading {spec.location} at {revision[:12]}")
    try:
        snapshot_download(
            spec.location,
            revision=revision,
            local_dir=target,
            allow_patterns=HUB_FILES,
            ignore_patterns=["*/*"],  # other formats and precisions in folders of their own
        )
    except Exception as error:  # noqa: BLE001  (HTTP, xet and the file system each raise their own)
        raise missing(spec, f"the download broke off ({type(error).__name__}); pull again to go on") from None
    shutil.rmtree(target / ".cache", ignore_errors=True)


def _hub_revision(spec: BaseModelSpec) -> str:
    """The commit that ``main`` names now. In a thread: no timeout of a library covers a resolver that hangs."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError

    if constants.is_offline_mode():
        raise missing(spec, "it is not on this machine, and HF_HUB_OFFLINE forbids to ask the hub")
    answers: list[str | Exception] = []

    def ask() -> None:
        try:
            answers.append(HfApi().repo_info(spec.location, timeout=_HUB_ANSWER_SECONDS).sha or "main")
        except Exception as error:  # noqa: BLE001  (handed to the thread that waits)
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_HUB_ANSWER_SECONDS)
    answer = answers[0] if answers else TimeoutError()
    if isinstance(answer, str):
        return answer
    if isinstance(answer, RepositoryNotFoundError):
        raise missing(spec, f"the hub shows no {spec.location} (a gated one wants HF_TOKEN)")
    raise missing(spec, f"it is not on this machine, and the hub does not answer ({type(answer).__name__})")


def pull_from_package(spec: BaseModelSpec, target: Path) -> None:
    """Convert the GGUF file of an installed package to bf16 safetensors; the package's code is not imported."""
    found = find_spec(spec.location) if spec.location.isidentifier() else None
    places = list(found.submodule_search_locations or []) if found else []
    files = sorted(file for place in places for file in Path(place).rglob("*.gguf"))
    if len(files) != 1:
        state = f"has {len(files)} GGUF files, not one" if found else "is not installed"
        raise missing(spec, f"the Python package {spec.location} {state}")
    say(f"{spec.name}: converting {files[0].name} to safetensors, about half a minute")
    with _quiet_transformers():
        _convert_gguf(files[0], target)


def _convert_gguf(file: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, name = str(file.parent), file.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)  # nosec B615 # a folder
    packed = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.bfloat16)  # nosec B615 # it too
    # A model read from GGUF saves as GGUF: move its tensors to one that knows nothing of quantization.
    config = packed.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(packed.state_dict())
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def pull_from_folder(spec: BaseModelSpec, target: Path) -> None:
    """Copy a local folder, so that the model no longer depends on where it came from."""
    source = Path(spec.location)
    if why := lacks(source):
        raise missing(spec, why)
    say(f"{spec.name}: copying")
    for file in sorted(source.iterdir()):
        if file.suffix in (".safetensors", ".json", ".jinja") and file.is_file():
            shutil.copyfile(file, target / file.name)


def pull_random(spec: BaseModelSpec, target: Path) -> None:
    """A tiny model with random weights, the same on every machine: ``location`` is llama, qwen2 or bert."""
    say(f"{spec.name}: making a random {spec.location} model")
    with _quiet_transformers():
        write_random_model(spec.location, target)


def say(line: str) -> None:
    """Tell whoever pulls a model how far it is, on standard error."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Its warnings and bars speak of steps that a person who pulls a model has not asked for."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
