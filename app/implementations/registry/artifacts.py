"""Published artifacts: models/registry/<version id>, never changed once there."""

from __future__ import annotations

import re
import shutil
from functools import lru_cache
from pathlib import Path

from app.core.entities.models import ModelVersion
from app.core.errors import Unavailable
from app.core.interfaces.components import ArtifactStore, ChatTokenizer
from app.implementations.data.encoder_tokenizer import load_tokenizer
from app.utils.folders import fresh_neighbour, manifest_of, move_into_place, remove_folder, seal

_FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class FolderArtifactStore(ArtifactStore):
    """``folder`` is models/registry. Tokenizers of the versions used last stay loaded."""

    def __init__(self, folder: Path) -> None:
        self._root = folder
        self._tokenizers = lru_cache(maxsize=32)(load_tokenizer)

    def publish(self, version_id: str, source: Path) -> str:
        target = self._place(version_id)
        if manifest_of(target) is None:
            remove_folder(target)
            temporary = fresh_neighbour(target)
            try:
                shutil.copytree(source, temporary, copy_function=shutil.copyfile, dirs_exist_ok=True)
                seal(temporary, {"version_id": version_id})
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            move_into_place(temporary, target)
        return target.name

    def folder(self, version: ModelVersion) -> Path:
        place = self._place(version.artifacts)
        if manifest_of(place) is None:
            raise Unavailable(
                f"the artifacts of {version.reference} are gone or damaged: restore models/registry, "
                "or train the version again",
                code="artifacts_missing",
            )
        return place

    def tokenizer(self, version: ModelVersion) -> ChatTokenizer:
        """``Unavailable`` (template_mismatch) if its chat template is not the one that it was trained with."""
        tokenizer = self._tokenizers(self.folder(version), version.config.get("reasoning", "keep"))
        if tokenizer.template_hash != version.template_hash:
            raise Unavailable(
                f"the chat template in the artifacts of {version.reference} is not the one that it was trained "
                "with: restore models/registry, or train the version again",
                code="template_mismatch",
            )
        return tokenizer

    def discard(self, artifacts: str) -> None:
        remove_folder(self._place(artifacts))

    def _place(self, name: str) -> Path:
        if not _FOLDER_NAME.fullmatch(name):
            raise ValueError(f"not a folder name: {name!r}")  # ids are ours: this is a fault of the program
        return self._root / name
