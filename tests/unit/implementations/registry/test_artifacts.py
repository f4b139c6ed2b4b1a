"""What a job publishes stays as it was, or is said to be gone."""

import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.core.entities.datasets import Message
from app.core.entities.models import ModelVersion
from app.core.errors import Unavailable
from app.implementations.data.tokenization import FolderChatTokenizer
from app.implementations.models.random_model import write_random_tokenizer
from app.implementations.registry.artifacts import FolderArtifactStore


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "artifacts"
    folder.mkdir(parents=True)
    write_random_tokenizer("llama", folder)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "plots").mkdir()
    (folder / "plots" / "loss.csv").write_text("1,2\n")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> FolderArtifactStore:
    return FolderArtifactStore(tmp_path / "registry")


def version(run: Path, artifacts: str) -> ModelVersion:
    return ModelVersion(
        id="v1",
        project_id="default",
        name="helper",
        number=3,
        base_model="tiny",
        template_hash=FolderChatTokenizer(run).template_hash,
        artifacts=artifacts,
        job_id=None,
        dataset_digest="",
        config={},
        metrics={},
        created_by=None,
        created_at=datetime.now(UTC),
    )


def test_publish(store: FolderArtifactStore, run: Path) -> None:
    published = version(run, store.publish("v1", run))
    folder = store.folder(published)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    assert files.keys() == {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
    assert all((folder / name).read_bytes() == (run / name).read_bytes() for name in files)


def test_again_with_the_same_id_is_the_same_folder(store: FolderArtifactStore, run: Path) -> None:
    first = store.folder(version(run, store.publish("v1", run))).stat().st_ino
    (run / "adapter_model.safetensors").write_bytes(b"others")
    again = store.folder(version(run, store.publish("v1", run)))
    assert again.stat().st_ino == first
    assert (again / "adapter_model.safetensors").read_bytes() == b"weights"


def test_what_was_damaged_may_be_published_anew(store: FolderArtifactStore, run: Path) -> None:
    published = version(run, store.publish("v1", run))
    (store.folder(published) / "adapter_model.safetensors").unlink()
    with pytest.raises(Unavailable) as caught:
        store.folder(published)
    assert caught.value.code == "artifacts_missing"
    store.publish("v1", run)
    assert (store.folder(published) / "adapter_model.safetensors").exists()


def test_a_failed_copy_leaves_nothing(store: FolderArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.publish("v1", tmp_path / "absent")
    assert list((tmp_path / "registry").iterdir()) == []


def test_the_tokenizer_stays_loaded_and_has_the_version_s_template(store: FolderArtifactStore, run: Path) -> None:
    published = version(run, store.publish("v1", run))
    assert store.tokenizer(published) is store.tokenizer(published)
    with pytest.raises(Unavailable) as caught:
        store.tokenizer(dataclasses.replace(published, template_hash="of another template"))
    assert caught.value.code == "template_mismatch"


def test_a_version_drops_thoughts_where_it_was_trained_without(store: FolderArtifactStore, run: Path) -> None:
    published = version(run, store.publish("v1", run))
    without = dataclasses.replace(published, config={"reasoning": "drop"})
    history: list[Message] = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<think>hm</think>Hello"},
        {"role": "user", "content": "Bye"},
    ]
    answered = [history[0], {**history[1], "content": "Hello"}, history[2]]
    keeping, dropping = store.tokenizer(published), store.tokenizer(without)
    assert dropping.encode_prompt(history) == keeping.encode_prompt(answered)
    assert keeping.encode_prompt(history) != keeping.encode_prompt(answered)


def test_discard(store: FolderArtifactStore, run: Path, tmp_path: Path) -> None:
    name = store.publish("v1", run)
    store.discard(name)
    store.discard(name)
    assert list((tmp_path / "registry").iterdir()) == []
    for bad in ("..", "a/b", "", ".hidden"):
        with pytest.raises(ValueError, match="folder name"):
            store.discard(bad)
