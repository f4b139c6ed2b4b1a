import json
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from app.core.entities.identity import DEFAULT_PROJECT_ID
from app.core.entities.models import ModelAlias, ModelVersion
from app.core.entities.training_config import TrainingConfig
from app.core.errors import Invalid, NotFound, Unavailable
from app.core.interfaces.components import TextGenerator
from app.core.interfaces.stores import Stores
from app.core.services.models.evaluation import EvaluationService
from app.core.services.models.resolver import ModelResolver
from app.implementations.data.store import FileDatasetStore
from app.implementations.data.token_cache import FileTokenCache
from app.implementations.evaluation.facts import states_fact
from app.implementations.models.base_models import FolderBaseModelStore
from app.implementations.registry.artifacts import FolderArtifactStore
from app.registries import BASE_MODEL_SOURCES, DATA_FORMATS
from tests.databases import Versions

ANSWERS = {"When?": "At 9 o'clock.", "Where?": "In Rome.", "几点？": "九点。"}


class Recited(TextGenerator):
    """Answers in the reverse of the order asked, so that places must be heeded; counts how often it is built."""

    built = 0
    last: "Recited"

    def __init__(self, tokenizer, said, **arguments) -> None:
        type(self).built += 1
        type(self).last = self
        self.tokenizer, self.said, self.arguments = tokenizer, said, arguments

    def generate(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> Iterator[tuple[int, Sequence[int]]]:
        for place in reversed(range(len(prompts))):
            asked = self.tokenizer.decode(prompts[place])
            answer = next(text for question, text in self.said.items() if question in asked)
            yield place, self.tokenizer._encode_piece(answer)


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    keys = {"When?": [["9 o'clock"]], "Where?": [["Paris"]], "几点？": [["九点"]]}
    rows = [
        {
            "split": "test",
            "language": "zh" if question == "几点？" else "en",
            "keys": keys[question],
            "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "…"}],
        }
        for question in ANSWERS
    ]
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([*rows, {**rows[0], "split": "train"}]))
    return str(file)


@pytest.fixture
def service(tmp_path: Path, database: Engine) -> EvaluationService:
    catalogue = tmp_path / "base_models.yaml"
    catalogue.write_text("tiny: {source: random, location: llama}\n")
    bases = FolderBaseModelStore(catalogue, tmp_path / "base", BASE_MODEL_SOURCES)
    bases.pull("tiny")
    tokenizer = bases.tokenizer("tiny")
    Recited.built = 0
    stores = Stores(
        versions=Versions(database),
        bases=bases,
        datasets=FileDatasetStore(
            tmp_path, [DATA_FORMATS.create(name) for name in ("messages", "prompt_completion")], 10**6
        ),
        artifacts=FolderArtifactStore(tmp_path / "registry"),
        tokens=FileTokenCache(),
    )
    return EvaluationService(
        ModelResolver(stores.versions, stores.bases, stores.artifacts),
        stores,
        generators=lambda **arguments: Recited(tokenizer, ANSWERS, **arguments),
        states_fact=states_fact,
        results_dir=tmp_path / "results",
        threads=1,
    )


def test_answers_are_scored_by_language(service, dataset):
    seen: list[tuple[int, int]] = []
    report = service.evaluate("tiny", dataset, on_progress=lambda done, total: seen.append((done, total)))

    assert {group: (s.correct, s.total) for group, s in report.scores().items()} == {"en": (1, 2), "zh": (1, 1)}
    assert (report.overall.correct, report.overall.total) == (2, 3)
    assert [answer.answer for answer in report.answers] == list(ANSWERS.values())
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_a_report_that_was_written_is_read_again(service, dataset):
    first = service.evaluate("tiny", dataset)
    again = service.evaluate("tiny", dataset)

    assert again == first
    assert Recited.built == 1


def test_answers_come_in_the_order_of_the_questions(service):
    assert service.answers("tiny", ["Where?", "When?"], max_tokens=8) == ["In Rome.", "At 9 o'clock."]


def publish(service, tmp_path, base_digest=None, **config) -> Path:
    """A version ``support``; its artifacts' folder."""
    source = tmp_path / "artifacts"
    shutil.copytree(tmp_path / "base" / "tiny", source)
    service._stores.artifacts.publish("v1", source)
    service._stores.versions.publish(
        ModelVersion(
            id="v1",
            project_id=DEFAULT_PROJECT_ID,
            name="support",
            number=0,
            base_model="tiny",
            template_hash=service._stores.bases.tokenizer("tiny").template_hash,
            artifacts="v1",
            job_id=None,
            dataset_digest="",
            config=TrainingConfig(**config).model_dump(mode="json"),
            metrics={},
            created_by=None,
            created_at=datetime.now(UTC),
            base_digest=base_digest,
        )
    )
    return tmp_path / "registry" / "v1"


@pytest.mark.parametrize("adaptation", ["lora", "full"])
def test_an_adapter_answers_over_its_base_and_a_whole_model_by_itself(service, tmp_path, adaptation):
    folder = publish(service, tmp_path, adaptation=adaptation)
    service.answers("support", ["When?"], max_tokens=8)
    used = [Recited.last.arguments[key] for key in ("base_folder", "adapter_folder")]
    assert used == ([folder, None] if adaptation == "full" else [tmp_path / "base" / "tiny", folder])


def test_a_version_is_not_evaluated_over_another_base(service, tmp_path):
    publish(service, tmp_path, base_digest="of other weights")
    with pytest.raises(Unavailable, match="support:1") as refused:
        service.answers("support", ["When?"], max_tokens=8)
    assert refused.value.code == "base_mismatch"


def test_an_alias_is_evaluated_as_its_version(service, tmp_path, dataset):
    publish(service, tmp_path)
    best = ModelAlias(DEFAULT_PROJECT_ID, "support", "best", {1: 1}, None, datetime.now(UTC))
    service._stores.versions.set_alias(best)
    assert service.evaluate("support@best", dataset).model == "support:1"


def test_a_version_is_asked_nothing_that_it_was_trained_on(service, tmp_path):
    rows = [{"prompt": f"When? {place}", "completion": "At nine.", "keys": [["nine"]]} for place in range(40)]
    file = tmp_path / "unsplit.json"
    file.write_text(json.dumps(rows))
    publish(service, tmp_path, seed=7)
    datasets = service._stores.datasets
    cut = datasets.prepare(str(file), datasets.check(str(file), trusted=True).digest, 7, trusted=True)
    held_out = [row.row for row in datasets.rows(cut, "test")]
    assert [answer.row for answer in service.evaluate("support", str(file)).answers] == held_out
    assert [answer.row for answer in service.evaluate("tiny", str(file)).answers] != held_out


def test_a_model_that_nobody_knows(service, dataset):
    with pytest.raises(NotFound):
        service.evaluate("nobody", dataset)


def test_rows_without_keys_cannot_be_scored(service, dataset):
    rows = json.loads(Path(dataset).read_text())
    Path(dataset).write_text(json.dumps([{k: v for k, v in row.items() if k != "keys"} for row in rows]))
    with pytest.raises(Invalid, match="keys"):
        service.evaluate("tiny", dataset)


def test_faulty_data_is_listed(service, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text('[{"messages": []}, {"messages": 3}]')
    with pytest.raises(Invalid) as raised:
        service.evaluate("tiny", str(bad))
    assert len(raised.value.faults) >= 2
