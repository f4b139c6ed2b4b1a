"""Who answers to a name: aliases and their splits, and what is not served."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Engine

from app.core.entities.engines import EngineKind
from app.core.entities.inference import Adapter
from app.core.entities.models import BaseModelSpec, ModelAlias, ModelVersion
from app.core.errors import Invalid, NotFound, Unavailable
from app.core.interfaces.components import ArtifactStore, BaseModelStore, ChatTokenizer
from app.core.services.answers.targets import Targets
from app.core.services.models.resolver import ModelResolver
from tests.databases import Versions

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TOKENIZER = cast("ChatTokenizer", SimpleNamespace(generates=True))


class Bases(BaseModelStore):
    """``tiny`` is on this host, ``big`` an engine's elsewhere."""

    def specs(self) -> Sequence[BaseModelSpec]:
        return [BaseModelSpec(name, "random", "llama") for name in ("tiny", "big")]

    def spec(self, name: str) -> BaseModelSpec:
        return next(spec for spec in self.specs() if spec.name == name)

    def folder(self, name: str) -> Path:
        return Path("/bases") / name

    def present(self, name: str) -> bool:
        return name == "tiny"

    def pull(self, name: str) -> Path:
        return self.folder(name)

    def tokenizer(self, name: str) -> ChatTokenizer:
        return TOKENIZER

    def digest(self, name: str) -> str | None:
        return {"tiny": "weights of tiny"}.get(name)


class Artifacts(ArtifactStore):
    def publish(self, version_id: str, source: Path) -> str:
        return version_id

    def folder(self, version: ModelVersion) -> Path:
        return Path("/registry") / version.artifacts

    def tokenizer(self, version: ModelVersion) -> ChatTokenizer:
        return TOKENIZER

    def discard(self, artifacts: str) -> None:
        pass


VERSION = ModelVersion(
    id="id",
    project_id="default",
    name="support",
    number=0,
    base_model="tiny",
    template_hash="hash",
    artifacts="folder",
    job_id=None,
    dataset_digest="d",
    config={},
    metrics={},
    created_by=None,
    created_at=NOW,
)


@pytest.fixture
def versions(database: Engine) -> Versions:
    return Versions(database)


def targets_of(versions: Versions, *arguments: Any, **options: Any) -> Targets:
    bases, artifacts = Bases(), Artifacts()
    return Targets(ModelResolver(versions, bases, artifacts), bases, artifacts, *arguments, **options)


@pytest.fixture
def targets(versions: Versions) -> Targets:
    return targets_of(versions)


def publish(versions: Versions, *ids: str, **changes: Any) -> None:
    for version_id in ids:
        versions.publish(replace(VERSION, id=version_id, **changes))


def set_alias(versions: Versions, name: str, weights: dict[int, int]) -> None:
    versions.set_alias(ModelAlias("default", "support", name, weights, None, NOW))


def test_an_alias_is_its_version_and_champion_stands_behind_the_bare_name(
    targets: Targets, versions: Versions
) -> None:
    publish(versions, "one", "two", "three")
    set_alias(versions, "canary", {1: 1})
    assert targets.find("default", "support@canary").version_id == "one"
    assert targets.find("default", "support").name == "support:3"
    set_alias(versions, "champion", {2: 1})
    assert targets.find("default", "support").name == "support:2"
    assert targets.find("default", "support:3").version_id == "three"


def test_a_conversation_stays_with_one_version_of_a_split(targets: Targets, versions: Versions) -> None:
    publish(versions, "one", "two")
    set_alias(versions, "champion", {1: 1, 2: 1})

    def names(*conversations: str | None) -> list[str]:
        return [targets.find("default", "support", conversation).name for conversation in conversations]

    assert len(set(names(*["the same"] * 20))) == 1
    assert set(names(*map(str, range(40)))) == set(names(*[None] * 40)) == {"support:1", "support:2"}


def test_what_a_name_stood_for_is_kept_for_a_moment(versions: Versions) -> None:
    targets = targets_of(versions, keep_seconds=60)
    with pytest.raises(NotFound):
        targets.find("default", "support")
    publish(versions, "one")
    assert targets.find("default", "support").name == "support:1"  # that there was none is not kept
    publish(versions, "two")
    assert targets.find("default", "support").name == "support:1"
    assert targets.find("default", "support:2").name == "support:2"
    with pytest.raises(NotFound):
        targets.find("theirs", "support")
    targets._kept.expire(time.monotonic() + 60)
    assert targets.find("default", "support").name == "support:2"


def test_a_split_is_drawn_anew_however_short_the_moment(versions: Versions) -> None:
    publish(versions, "one", "two")
    set_alias(versions, "champion", {1: 1, 2: 1})
    targets = targets_of(versions, keep_seconds=60)
    assert {targets.find("default", "support").name for _ in range(40)} == {"support:1", "support:2"}


@pytest.mark.parametrize("model", ["support@champion", "tiny@champion", "support:2", "tiny:1", "nobody"])
def test_a_version_or_an_alias_that_is_not_there(targets: Targets, versions: Versions, model: str) -> None:
    publish(versions, "one")
    publish(versions, "theirs", "more", project_id="other")
    assert targets.find("default", "tiny").version_id is None
    with pytest.raises(NotFound, match=model) as caught:
        targets.find("default", model)
    assert caught.value.code == "model_not_found"


def test_what_the_bases_engine_cannot_serve_is_refused_with_the_reason(
    targets: Targets, versions: Versions
) -> None:
    publish(versions, "one", config={"lora": {"use_dora": True}})
    assert targets.find("default", "support").name == "support:1"
    vllm = Targets(
        ModelResolver(versions, Bases(), Artifacts()), Bases(), Artifacts(), lambda base_model: EngineKind.VLLM
    )
    with pytest.raises(Invalid, match=r"support:1 cannot be served: .*use_dora, which vLLM") as caught:
        vllm.find("default", "support")
    assert caught.value.code == "not_servable"


def test_a_base_model_with_other_weights_than_it_was_trained_over(targets: Targets, versions: Versions) -> None:
    publish(versions, "one", base_digest="weights of tiny")
    publish(versions, "two", base_digest="weights of before")
    publish(versions, "three", base_model="big", base_digest="weights of big")
    assert targets.find("default", "support:1").base_model == "tiny"
    assert targets.find("default", "support:3").base_model == "big"  # whose weights are its engine's affair
    with pytest.raises(Unavailable, match="tiny is not the model that support:2 was trained over") as caught:
        targets.find("default", "support:2")
    assert caught.value.code == "base_mismatch"


def test_an_adapter_says_whether_it_is_to_be_kept(targets: Targets, versions: Versions) -> None:
    publish(versions, "one")
    for pinned in (True, False):
        versions.pin("default", "one", pinned)
        assert targets.find("default", "support").adapter == Adapter("one", "/registry/folder", pinned)
