"""What a name means, in the project that says it."""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from app.core.entities.models import Reference
from app.core.errors import Invalid, NotFound
from app.core.services.models.resolver import ModelResolver
from app.repositories.database import Database
from app.repositories.mapping import version_row
from app.repositories.model_versions import SqlModelVersionRepository
from app.repositories.tables import Base, ProjectRow
from tests.unit.core.services.answers.test_targets import NOW, VERSION, Artifacts, Bases

REDIRECTS = {"gpt-4o-mini": "support", "house": "tiny"}


VERSIONS = [
    replace(VERSION, id=f"{project}/{name}/{number}", project_id=project, name=name, number=number, config=config)
    for project, name, number, config in (
        ("default", "support", 1, {"seed": 2}),
        ("default", "support", 2, {"seed": 3}),
        ("default", "labels", 1, {"objective": "classification"}),
        ("theirs", "secret", 1, {}),
        ("theirs", "tiny", 1, {"adaptation": "full", "seed": 5}),
    )
]


@pytest.fixture
def resolver(tmp_path: Path) -> ModelResolver:
    engine = create_engine(f"sqlite:///{tmp_path}/app.db")
    versions = SqlModelVersionRepository(engine)
    Base.metadata.create_all(engine)
    with Database(engine).write() as session:
        session.add_all([ProjectRow(id=name, name=name, created_at=NOW) for name in ("default", "theirs")])
        session.flush()
        session.add_all(map(version_row, VERSIONS))
    return ModelResolver(versions, Bases(), Artifacts(), REDIRECTS)


def test_a_version_of_the_project_comes_before_a_base_model(resolver: ModelResolver) -> None:
    theirs = resolver.find("theirs", "tiny")
    assert theirs is not None
    assert theirs.id == "theirs/tiny/1"
    assert resolver.find("default", "tiny") is None
    assert resolver.version("default", Reference("tiny")) is None


@pytest.mark.parametrize("name", ["secret", "support:3", "support@best", "tiny:1", "tiny@champion"])
def test_what_is_neither(resolver: ModelResolver, name: str) -> None:
    with pytest.raises(NotFound, match=f"'{name}' in this project") as caught:
        resolver.find("default", name)
    assert caught.value.code == "model_not_found"


def test_a_subject_is_found_in_its_own_project(resolver: ModelResolver) -> None:
    base, adapter, whole = (
        resolver.subject(project, name)
        for project, name in (("default", "tiny"), ("default", "support"), ("theirs", "tiny"))
    )
    assert (base.name, base.key, base.adapter_folder) == ("tiny", "tiny", None)
    assert base.model_folder() == Path("/bases/tiny")
    assert (adapter.name, adapter.key, adapter.seed) == ("support:2", "default/support/2", 3)
    assert (adapter.model_folder(), adapter.adapter_folder) == (Path("/bases/tiny"), Path("/registry/folder"))
    assert (whole.name, whole.model_folder(), whole.adapter_folder) == ("tiny:1", Path("/registry/folder"), None)
    with pytest.raises(NotFound):
        resolver.subject("theirs", "support")


def test_a_label_head_is_no_subject(resolver: ModelResolver) -> None:
    with pytest.raises(Invalid, match="labels:1") as caught:
        resolver.subject("default", "labels")
    assert caught.value.code == "not_generative"


def test_names_of_openais_dialect(resolver: ModelResolver) -> None:
    named = {**REDIRECTS, "ft:tiny:default:support:1": "support:1", "any@one": "any@one"}
    assert {name: resolver.reference("default", name) for name in named} == named
    for name in ("ft:tiny:theirs:secret:1", "ft:big:default:support:1", "ft:tiny:default:support:9", "a b"):
        with pytest.raises(NotFound, match="GET /v1/models") as caught:
            resolver.reference("default", name)
        assert caught.value.code == "model_not_found"
