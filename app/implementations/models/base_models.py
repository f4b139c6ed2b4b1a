"""Base models by name: the catalogue, and the folders under models/base."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.core.entities.models import BaseModelSpec
from app.core.entities.training_config import Name
from app.core.errors import Conflict, Fault, Invalid
from app.core.factories import ComponentFactory
from app.core.interfaces.components import BaseModelStore, ChatTokenizer
from app.implementations.data.encoder_tokenizer import load_tokenizer
from app.implementations.models.contents import lacks, weights_digest
from app.implementations.models.missing import missing
from app.utils.folders import MANIFEST, locked, move_into_place, seal


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    source: str
    location: str = Field(min_length=1)
    description: str = ""


_CATALOGUE = TypeAdapter(dict[Name, _Entry])


class FolderBaseModelStore(BaseModelStore):
    """``catalogue`` is config/base_models.yaml, ``folder`` is models/base, ``sources`` fills new folders.

    A source is a function (spec, target) that fills ``target``, which may hold what an interrupted pull left.
    The constructor raises ``Invalid`` with every fault of the catalogue. Nothing but ``pull`` goes to a network.
    """

    def __init__(self, catalogue: Path, folder: Path, sources: ComponentFactory[Any]) -> None:
        self._specs = read_catalogue(catalogue, sources.names())
        self._root = catalogue.resolve().parent.parent
        self._folder = folder
        self._sources = sources
        self._tokenizers = lru_cache(maxsize=8)(load_tokenizer)
        self._digests: dict[str, str] = {}  # of what this process has once found whole

    def specs(self) -> Sequence[BaseModelSpec]:
        return list(self._specs.values())

    def spec(self, name: str) -> BaseModelSpec:
        try:
            return self._specs[name]
        except KeyError:
            known = ", ".join(sorted(self._specs))
            raise Invalid(f"unknown base model {name[:80]!r}; known: {known}", code="unknown_base_model") from None

    def folder(self, name: str) -> Path:
        spec = self.spec(name)
        place = self._place(spec)
        if why := lacks(place):
            raise missing(spec, why)
        return place

    def present(self, name: str) -> bool:
        return lacks(self._place(self.spec(name))) is None

    def pull(self, name: str) -> Path:
        """Returns at once if it is here. ``Conflict`` if a folder of that name is there and is not whole."""
        spec = self.spec(name)
        target = self._folder / name
        with locked(target):
            if target.exists():
                if why := lacks(target):
                    raise Conflict(
                        f"models/base/{name} is in the way: {why}. Complete it or remove it, then pull again",
                        code="base_model_incomplete",
                    )
                return target
            temporary = self._fill(self._absolute(spec))
            seal(temporary, {"name": name, "source": spec.source, "location": spec.location})
            move_into_place(temporary, target)
        sys.stderr.write(f"{name}: ready in models/base/{name}\n")
        return target

    def tokenizer(self, name: str) -> ChatTokenizer:
        return self._tokenizers(self.folder(name))

    def digest(self, name: str) -> str | None:
        if name not in self._digests and name in self._specs:
            place = self._place(self._specs[name])
            if lacks(place) is None:
                self._digests[name] = weights_digest(place)
        return self._digests.get(name)

    def _fill(self, spec: BaseModelSpec) -> Path:
        """A folder with the whole model, named alike at each try: a download goes on where it was cut off."""
        place = hashlib.sha256(f"{spec.source}:{spec.location}".encode()).hexdigest()[:8]
        temporary = self._folder / f".{spec.name}.pull-{place}"
        temporary.mkdir(exist_ok=True)
        try:
            self._sources.load(spec.source)(spec, temporary)
        finally:
            with suppress(OSError):
                temporary.rmdir()  # only if nothing came
        (temporary / MANIFEST).unlink(missing_ok=True)  # another's, or of a pull cut off in its last moment
        if why := lacks(temporary):
            shutil.rmtree(temporary)
            raise missing(spec, f"what was pulled cannot be used: {why}")
        load_tokenizer(temporary)  # a model that cannot chat is refused now, not in the first job
        for file in temporary.iterdir():
            file.chmod(0o644)  # safetensors writes 0600: what root pulls into an image, its user must read
        return temporary

    def _place(self, spec: BaseModelSpec) -> Path:
        pulled = self._folder / spec.name
        if spec.source == "folder" and not pulled.exists():
            return Path(self._absolute(spec).location)
        return pulled

    def _absolute(self, spec: BaseModelSpec) -> BaseModelSpec:
        """A relative path is meant from the project's root, which holds config/."""
        if spec.source not in ("folder", "scratch"):
            return spec
        location = str(self._root / Path(spec.location).expanduser())
        return BaseModelSpec(spec.name, spec.source, location, spec.description)


def read_catalogue(file: Path, sources: Sequence[str]) -> dict[str, BaseModelSpec]:
    """The entries by name. ``Invalid`` names every faulty key, as base_models.yaml.NAME.key."""
    try:
        raw = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Invalid(f"{file.name}: cannot be read as YAML: {error}", code="invalid_catalogue") from None
    try:
        entries = _CATALOGUE.validate_python(raw)
    except ValidationError as error:
        faults = [
            Fault(".".join([file.name, *map(str, e["loc"])]), e["type"], e["msg"])
            for e in error.errors(include_input=False, include_url=False)
        ]
    else:
        faults = [
            Fault(f"{file.name}.{name}.source", "unknown_source", f"must be one of {', '.join(sources)}")
            for name, entry in entries.items()
            if entry.source not in sources
        ]
    if faults:
        lines = "; ".join(f"{fault.where}: {fault.message}" for fault in faults)
        raise Invalid(f"the catalogue of base models has faults: {lines}", code="invalid_catalogue", faults=faults)
    return {
        name: BaseModelSpec(name, entry.source, entry.location, entry.description)  # type: ignore[arg-type]
        for name, entry in entries.items()
    }
