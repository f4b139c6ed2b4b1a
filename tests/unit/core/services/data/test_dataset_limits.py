"""What makes a dataset stays within the service's limits, where the project has none of its own."""

import io

import pytest
from sqlalchemy import create_engine

from app.core.entities.datasets import Conversation, DataLimits
from app.core.entities.identity import Principal
from app.core.entities.limits import ProjectLimits
from app.core.errors import Forbidden
from app.core.services.data.dataset_versions import DatasetVersionService
from app.implementations.data.library import FolderDatasetLibrary
from app.registries import DATA_FORMATS
from app.repositories.database import migrate_empty
from app.repositories.datasets import SqlDatasetRepository


@pytest.fixture
def limited(tmp_path):
    """``limited(bytes)``: the service over one database, with room for so many bytes in a project."""
    engine = create_engine(f"sqlite:///{tmp_path / 'app.db'}")
    migrate_empty(engine)
    library = FolderDatasetLibrary(tmp_path, list(map(DATA_FORMATS.create, DATA_FORMATS.names())), DataLimits())

    def limited(storage_bytes):
        limits = ProjectLimits(storage_bytes=storage_bytes)
        return DatasetVersionService(SqlDatasetRepository(engine), library, limits, most_bytes=10**7)

    yield limited
    engine.dispose()


def test_every_way_to_make_rows_is_refused_without_room(limited, tmp_path):
    roomy = limited(None)
    first, second = (
        roomy.upload(
            Principal.host(), io.BytesIO(b'{"prompt": "%d?", "completion": "!"}\n' % n), "a.jsonl", name=f"n{n}"
        )
        for n in range(2)
    )
    full = limited(first.size + second.size)
    ways = (
        lambda: full.upload(
            Principal.host(), io.BytesIO(b'{"prompt": "x", "completion": "y"}\n'), "a.jsonl", name="third"
        ),
        lambda: full.derive(Principal.host(), first, [Conversation(1, [], text="another")], {}, []),
        lambda: full.with_validation(Principal.host(), first, second),
    )
    for make in ways:
        with pytest.raises(Forbidden) as refused:
            make()
        assert refused.value.code == "quota_exceeded"
    assert len(full.list(Principal.host()).datasets) == 2
    kept = {folder.name for folder in (tmp_path / "versions").iterdir() if folder.is_dir()}
    assert kept == {first.digest, second.digest}
    combined = roomy.with_validation(Principal.host(), first, second)
    assert [row.split for row in roomy.rows(Principal.host(), combined.reference)] == ["train", "validation"]
