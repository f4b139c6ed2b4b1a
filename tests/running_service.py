"""A service on disk, whose workers and supervisor are real processes and whose trainer is the double."""

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from flask import Flask
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from app import create_app
from app.bootstrap import Settings, prepare_instance
from app.core.entities.identity import DEFAULT_PROJECT_ID, Principal, Role
from app.core.entities.jobs import FINAL_STATES, FineTuningJob, JobState
from app.core.services import Services
from app.extensions import db
from app.implementations.queue.process_tree import kill_session

ROOT = Path(__file__).parents[1]
PASSWORD = "correct horse battery"
BASE = "tiny-random"
CHATML = (
    "{%- for m in messages -%}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)
CELERY = ("-m", "celery", "-A", "run", "worker", "--without-mingle")
WAIT_SECONDS = 60.0

Developer = Principal("user-1", "dev", DEFAULT_PROJECT_ID, Role.OPERATOR)


def make_base(folder: Path) -> None:
    """A base model as far as jobs look at it: a byte tokenizer, a template, and weights without a tensor."""
    folder.mkdir(parents=True)
    vocabulary = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    (folder / "chat_template.jinja").write_text(CHATML)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")


@dataclass
class Service:
    settings: Settings
    environment: dict[str, str]
    services: Services
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def submit(self, name: str, **config: Any) -> str:
        overrides = {"base_model": BASE, "dataset_path": "data/raw/rows.json", "experiment_name": name, **config}
        return self.services.training.submit(Developer, overrides).id

    def job(self, job_id: str) -> FineTuningJob:
        return self.services.job_records.get(Developer, job_id)

    def wait_for(self, job_id: str, *states: JobState, seconds: float = WAIT_SECONDS) -> FineTuningJob:
        wait_until(lambda: self.job(job_id).state in (states or FINAL_STATES), self.log, seconds)
        return self.job(job_id)

    def marks(self, job_id: str) -> list[tuple[str, float]]:
        """(start or end, boot time) of each attempt that the double made."""
        path = self.settings.results_dir / "marks.txt"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(line[0], float(line[3])) for line in lines if line[1] == job_id]

    def count_of_marks(self) -> int:
        path = self.settings.results_dir / "marks.txt"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def log(self) -> str:
        return self.whole_log()[-4000:]

    def whole_log(self) -> str:
        return (self.settings.instance_dir / "test.log").read_text(errors="replace")

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        with (self.settings.instance_dir / "test.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if "run.py" in arguments else log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def worker(self, **environment: str) -> subprocess.Popen[bytes]:
        return self.start(*CELERY, **environment)


MakeService = Callable[..., Service]


@pytest.fixture
def make_service(tmp_path: Path) -> Iterator[MakeService]:
    with services_in(tmp_path) as make:
        yield make


@contextmanager
def services_in(place: Path) -> Iterator[MakeService]:
    """What makes services under ``place``; their processes end with the block."""
    made: list[tuple[Flask, Service]] = []

    def make(**overrides: Any) -> Service:
        folders = {f"{name}_dir": place / name for name in ("instance", "data", "models", "results")}
        values = {
            **folders,
            "trainer": "double",
            "default_base_model": BASE,
            "engine_base_model": BASE,
            "engines": {BASE: "http://127.0.0.1:9"},  # nobody's: no engine is started
            "admin_password": PASSWORD,
            "spare_trainers": False,  # a process more for each, where no test asks for it
            "cpu_threads": 8,  # no thread of the double computes; with trainer="torch" give 1, or they crawl
            "lease_seconds": 3.0,
            "poll_seconds": 0.2,
            "port": 0,
            **overrides,
        }
        settings = Settings(**values)
        make_base(settings.models_dir / "base" / BASE)
        raw = settings.data_dir / "raw"
        raw.mkdir(parents=True)
        (raw / "rows.json").write_text(json.dumps([_row(number) for number in range(10)]))
        app = create_app(settings)
        prepare_instance(app)
        environment = {key.upper(): _plain(value) for key, value in values.items()}
        service = Service(settings, {**os.environ, **environment}, app.extensions["services"])
        made.append((app, service))
        return service

    try:
        yield make
    finally:
        _end(made)


def _end(made: list[tuple[Flask, Service]]) -> None:
    for app, service in made:
        for process in service.processes:
            kill_session(process.pid)
            process.communicate()
        with app.app_context():
            db.engine.dispose()


def at_large(process: psutil.Process) -> bool:
    """A zombie is no more than an entry that its parent, by now init, has yet to remove."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(
    condition: Callable[[], object], explain: Callable[[], str] = str, seconds: float = WAIT_SECONDS
) -> None:
    """For what other processes do, of which no event tells us."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, explain()
        time.sleep(0.05)


def _row(number: int) -> dict[str, Any]:
    question = {"role": "user", "content": f"What is number {number}?"}
    return {"messages": [question, {"role": "assistant", "content": f"Number {number} it is."}]}


def _plain(value: object) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
