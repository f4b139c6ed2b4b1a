"""Each tracker with its real library: what was logged is read back from where it lies."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.core.entities.training_config import TrainingConfig
from app.core.interfaces.components import TrainerJob
from app.registries import TRACKERS

LOSSES = {1: 2.5, 2: 1.25}
ANSWER = "What opens?\n\n→ The <b>shop</b>"


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainerJob:
    for name in ("MLFLOW_TRACKING_URI", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MLFLOW_DISABLE_TELEMETRY", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, "")  # what start() sets does not outlive the test
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    run = tmp_path / "results" / "shop_20261101-100000"
    run.mkdir(parents=True)
    config = TrainingConfig(experiment_name="shop", base_model="tiny")
    return TrainerJob("ftjob-1", 1, "torch", config, tmp_path, tmp_path, run, threads=1)


def record(name: str, job: TrainerJob, losses: dict[int, float]) -> None:
    tracker = TRACKERS.create(name)
    tracker.start(job)
    for step, loss in losses.items():
        tracker.log(step, {"train/loss": loss, "system/cpu_percent": 99.0})
    tracker.text(max(losses), "samples/1", ANSWER)
    tracker.finish(True)


def read_tensorboard(job: TrainerJob) -> dict[int, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(job.run_folder / "tensorboard"))
    events.Reload()
    return {event.step: event.value for event in events.Scalars("train/loss")}


def read_mlflow(job: TrainerJob) -> dict[int, float]:
    client, run = mlflow_run(job)
    return {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, "train/loss")}


def mlflow_run(job: TrainerJob) -> tuple[Any, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{job.run_folder.parent / 'mlflow' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("shop").experiment_id])
    return client, run


def read_wandb(job: TrainerJob) -> dict[int, float]:
    return {row["_step"]: row["train/loss"] for row in wandb_rows(job) if "train/loss" in row}


def wandb_rows(job: TrainerJob) -> list[dict[str, Any]]:
    """The history in the offline files, in their order."""
    from wandb.proto.wandb_internal_pb2 import Record

    rows = []
    for file in sorted((job.run_folder / "wandb").glob("offline-run-*/*.wandb")):
        content = file.read_bytes()
        place = 7  # of the file's header; LevelDB's log format follows, of one block
        while place < len(content):
            _, length, _ = struct.unpack_from("<IHB", content, place)
            record = Record.FromString(content[place + 7 : place + 7 + length])
            place += 7 + length
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
    return rows


READERS: dict[str, Callable[[TrainerJob], dict[int, float]]] = {
    "tensorboard": read_tensorboard,
    "mlflow": read_mlflow,
    "wandb": read_wandb,
}


@pytest.mark.parametrize("name", TRACKERS.names())
def test_what_is_logged_can_be_read(name: str, job: TrainerJob) -> None:
    record(name, job, LOSSES)
    assert READERS[name](job) == LOSSES


@pytest.mark.parametrize("name", TRACKERS.names())
def test_a_later_attempt_goes_on_with_the_record(name: str, job: TrainerJob) -> None:
    record(name, job, LOSSES)
    record(name, job, {3: 0.5})
    assert READERS[name](job) == {**LOSSES, 3: 0.5}


@pytest.mark.parametrize("name", TRACKERS.names())
def test_nothing_is_left_outside_of_the_results(
    name: str, job: TrainerJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "working folder"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    record(name, job, LOSSES)
    assert list(elsewhere.iterdir()) == []


def test_tensorboard_shows_the_config_and_the_samples(job: TrainerJob) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record("tensorboard", job, LOSSES)
    events = EventAccumulator(str(job.run_folder / "tensorboard"))
    events.Reload()
    (config,) = events.Tensors("config/text_summary")
    (sample,) = events.Tensors("samples/1/text_summary")
    assert b'"experiment_name": "shop"' in config.tensor_proto.string_val[0]
    assert sample.step == 2
    assert "    → The <b>shop</b>".encode() in sample.tensor_proto.string_val[0]


def test_mlflow_has_params_tags_samples_and_an_end(job: TrainerJob) -> None:
    record("mlflow", job, LOSSES)
    client, run = mlflow_run(job)
    assert (run.info.run_name, run.info.status) == (job.run_folder.name, "FINISHED")
    assert (run.data.tags["job_id"], run.data.tags["base_model"]) == ("ftjob-1", "tiny")
    assert (run.data.params["lora.r"], run.data.params["objective"]) == (str(job.config.lora.r), "sft")
    (file,) = client.list_artifacts(run.info.run_id, "samples/1")
    assert Path(client.download_artifacts(run.info.run_id, file.path)).read_text("utf-8") == ANSWER


def test_mlflow_writes_where_its_variable_says(
    job: TrainerJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'theirs.db'}")
    tracker = TRACKERS.create("mlflow")
    tracker.start(job)
    tracker.finish(False)
    assert (tmp_path / "theirs.db").is_file()
    assert not (job.run_folder.parent / "mlflow").exists()


def test_mlflow_sends_many_steps_at_once_and_the_rest_at_the_end(
    job: TrainerJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = TRACKERS.create("mlflow")
    tracker.start(job)
    sent: list[int] = []
    whole = tracker._client.log_batch
    monkeypatch.setattr(
        tracker._client, "log_batch", lambda run, metrics: (sent.append(len(metrics)), whole(run, metrics))
    )
    losses = {step: float(step) for step in range(1, 1103)}
    for step, loss in losses.items():
        tracker.log(step, {"train/loss": loss})
    tracker.finish(True)
    assert sum(sent) == 1102
    assert max(sent) <= 1000
    assert len(sent) < 100
    assert read_mlflow(job) == losses


def test_wandb_keeps_its_files_offline_and_tells_nothing_of_the_host(job: TrainerJob) -> None:
    record("wandb", job, LOSSES)
    (folder,) = (job.run_folder / "wandb").glob("offline-run-*")
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert not names & {"wandb-metadata.json", "requirements.txt", "output.log", "diff.patch"}
    (page,) = folder.rglob("*.html")
    assert "The &lt;b&gt;shop&lt;/b&gt;" in page.read_text("utf-8")
