"""The same job in the foreground and through a worker leaves the same run folder and the same record."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from app import create_app
from app.bootstrap import load_training_config
from app.core.entities.identity import Principal
from app.core.entities.jobs import FineTuningJob, JobState
from app.model.training_service import train
from tests.running_service import BASE, Developer, MakeService, Service

TIMES = {"created_at", "started_at", "finished_at"}
OF_ONE_JOB = {*TIMES, "id", "created_by", "run_folder", "model_version_id", "made"}
ASKED = {"base_model": BASE, "experiment_name": "double-ok", "num_epochs": 5, "model_name": "helper"}


def run_folder(service: Service, job: FineTuningJob) -> Path:
    return service.settings.results_dir / (job.run_folder or "")


def files(service: Service, job: FineTuningJob) -> list[str]:
    folder = run_folder(service, job)
    return sorted(str(path.relative_to(folder)).replace(job.id, "JOB") for path in folder.rglob("*"))


def record(job: FineTuningJob) -> dict[str, Any]:
    """What the two must agree on; a client names data by a path below the service's folder."""
    row = {key: value for key, value in asdict(job).items() if key not in OF_ONE_JOB}
    row["config"] = without_path(job.config)
    return row


def without_path(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key != "dataset_path"}


def test_foreground_and_worker_leave_the_same(make_service: MakeService) -> None:
    service = make_service()
    rows = service.settings.data_dir / "raw" / "rows.json"
    config = load_training_config(service.settings.train_config_file, dataset_path=str(rows), **ASKED)
    here = train(create_app(service.settings, inline=True), config)

    service.worker()
    overrides = {**without_path(config.as_request()), "dataset_path": "data/raw/rows.json"}
    there = service.wait_for(service.services.training.submit(Developer, overrides).id)

    assert (here.state, there.state) == (JobState.SUCCEEDED, JobState.SUCCEEDED)
    assert record(here) == record(there)
    assert files(service, here) == files(service, there)
    assert "attempts/2/events.ndjson" in files(service, here)

    def written(job: FineTuningJob, name: str) -> Any:
        return yaml.safe_load((run_folder(service, job) / name).read_text())  # JSON is YAML too

    assert without_path(written(here, "config.yaml")) == without_path(written(there, "config.yaml"))
    assert written(here, "metrics.json") == written(there, "metrics.json")
    job_files = [written(job, "attempts/2/job.json") for job in (here, there)]
    assert job_files[0].keys() == job_files[1].keys()
    assert [file["attempt"] for file in job_files] == [2, 2]

    def events(principal: Principal, job: FineTuningJob) -> list[tuple[Any, ...]]:
        heard = service.services.job_records.events(principal, job.id, limit=1000)
        return [(e.seq, e.type, e.level, e.message, json.dumps(e.data, sort_keys=True)) for e in heard]

    assert events(Principal.host(), here) == events(Developer, there)
    assert len(events(Principal.host(), here)) == 7  # the ledger, the first word, five steps
    numbers = [service.services.models.version(job.model_version_id or "").number for job in (here, there)]
    assert numbers == [1, 2]
    assert [job.made for job in (here, there)] == [["helper:1"], ["helper:2"]]
