"""Classification jobs on the sample tickets, from the request to a published version, in real processes."""

import shutil
from pathlib import Path

import pytest
import yaml

from app.core.entities.datasets import Message
from app.core.entities.engines import EngineName
from app.core.entities.inference import ChatRequest
from app.core.entities.jobs import JobState
from app.core.errors import Invalid
from app.implementations.serving.label_config import head_labels
from app.implementations.serving.label_head import load_label_head
from app.processes.engine_folders import engine_folders
from tests.running_service import ROOT, Developer, MakeService, Service

QUESTION: list[Message] = [{"role": "user", "content": "Where is my parcel?"}]
CATALOGUE = {
    "tiny-random": {"source": "random", "location": "llama"},
    "tiny-encoder": {"source": "random", "location": "bert"},
}
TICKETS = {"dataset_path": "data/raw/sample_tickets.json", "objective": "classification", "model_name": "tickets"}


@pytest.fixture
def service(make_service: MakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setattr("tests.running_service.WAIT_SECONDS", 240.0)  # torch is no double
    (tmp_path / "config").mkdir()
    catalogue = tmp_path / "config" / "base_models.yaml"
    catalogue.write_text(yaml.safe_dump(CATALOGUE))
    made = make_service(trainer="torch", base_models_file=catalogue, lease_seconds=30.0, cpu_threads=1)
    shutil.rmtree(made.settings.models_dir / "base")  # what the double needs of a model
    for name in CATALOGUE:
        made.services.models.pull(name)
    shutil.copy(ROOT / "data" / "raw" / "sample_tickets.json", made.settings.data_dir / "raw")
    made.worker()
    return made


def test_tickets_are_learnt_and_the_version_tells_labels_only(service: Service) -> None:
    jobs = {
        base: service.submit(base, base_model=base, num_epochs=2, learning_rate=3e-3, precision="fp32", **TICKETS)
        for base in CATALOGUE
    }
    for base, job_id in jobs.items():
        job = service.wait_for(job_id)
        assert (job.state, job.error) == (JobState.SUCCEEDED, None)
        last = job.result["evaluations"][-1]
        assert last.keys() == {"step", "eval_loss", "eval_accuracy", "eval_macro_f1"}
        if base == "tiny-random":  # in so few steps the encoder learns nothing yet
            assert last["eval_loss"] < 1.7  # of six labels, as many rows each, 1.79 is a guess
            assert last["eval_accuracy"] > 1 / 6
        assert job.result["trained_tokens"] == 2 * 168
        version = service.services.models.version(str(job.model_version_id))
        assert (version.base_model, version.generates) == (base, False)
        engine = EngineName(base, version.artifacts)
        folder, base_folder = engine_folders(service.settings, engine)
        shares = load_label_head(folder, base_folder, head_labels(folder), "fp32").shares([5, 6, 7])
        assert (len(shares), sum(shares)) == (6, pytest.approx(1))

    for model in ("tickets:1", "tickets:2", "tiny-encoder"):
        with pytest.raises(Invalid) as caught:
            service.services.inference.chat(Developer, ChatRequest(QUESTION, model))
        assert caught.value.code == "not_generative"
        with pytest.raises(Invalid) as caught:
            service.services.evaluation.evaluate(model, str(ROOT / "data" / "raw" / "sample_data.json"))
        assert caught.value.code == "not_generative"


def test_what_cannot_be_classified_is_refused_before_it_is_queued(service: Service) -> None:
    conversations = service.wait_for(service.submit("chats", objective="classification"))
    assert conversations.error is not None
    assert conversations.error.code == "invalid_data"
    assert {fault.code for fault in conversations.error.faults} == {"wrong_shape", "too_few_labels"}
    chat = service.wait_for(service.submit("chat", base_model="tiny-encoder"))
    assert chat.error is not None
    assert chat.error.code == "not_generative"
