"""Jobs that ask a model the held-out questions of a dataset, and count the answers that state the right facts."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from app.core.entities.datasets import SPLITS
from app.core.entities.evaluation import EvaluationReport
from app.core.entities.identity import Principal
from app.core.entities.jobs import FineTuningJob
from app.core.entities.trainer import Placement
from app.core.errors import AppError, Fault, Invalid
from app.core.interfaces.components import DatasetStore, JobRunner, Reporter
from app.core.interfaces.job_kinds import Draft, Finished, JobKind, Task, Watch
from app.core.services.data.dataset_versions import DatasetVersionService
from app.core.services.jobs.room import DATA_FOLDER, RUN_FOLDER, needs_room
from app.core.services.models.evaluation import answer_texts, scorable, score_answers
from app.core.services.models.resolver import ModelResolver
from app.implementations.data.cuts import read_split
from app.implementations.data.encoder_tokenizer import load_tokenizer
from app.implementations.evaluation.facts import states_fact
from app.implementations.kinds.progress import Progress
from app.utils.files import write_whole

_GROUPS = ("group", "category")
MOST_ANSWERS = 1000  # in the job's row; its file has all of them


class EvaluateRunner(JobRunner):
    """Loads the model, asks, and scores."""

    path: ClassVar = "app.implementations.kinds.evaluate:EvaluateRunner"

    def carry_out(self, job_file: Mapping[str, Any], placement: Placement, report: Reporter) -> Mapping[str, Any]:
        """Return the scores, over all and by group and category, and every answer."""
        from app.implementations.evaluation.generation import BatchGenerator

        rows = scorable(read_split(Path(job_file["dataset_folder"]), job_file["split"]), job_file["split"])
        adapter, model = job_file["adapter_folder"], job_file["base_model_folder"]
        tokenizer = load_tokenizer(Path(adapter or model), job_file["reasoning"])
        report.message(f"asking {len(rows):,} questions")
        generator = BatchGenerator(
            base_folder=Path(model),
            adapter_folder=None if adapter is None else Path(adapter),
            stop_token_ids=tokenizer.stop_token_ids,
            threads=job_file["threads"],
        )
        ask = partial(answer_texts, generator, tokenizer)
        answers = score_answers(rows, tokenizer, ask, states_fact, Progress(report))
        found = EvaluationReport(job_file["model"], job_file["dataset_digest"], job_file["split"], answers)
        return {
            "model": found.model,
            "dataset_digest": found.dataset_digest,
            "split": found.split,
            "correct": found.overall.correct,
            "total": found.overall.total,
            "accuracy": found.overall.share,
            **{f"by_{key}": {name: asdict(score) for name, score in found.scores(key).items()} for key in _GROUPS},
            "answers": [asdict(answer) for answer in answers],
        }


class EvaluateKind(JobKind):
    """``folder`` holds the files of its jobs, ``reports`` those that stay."""

    name = "evaluate"
    id_prefix = "eval"
    runner = EvaluateRunner.path

    def __init__(
        self,
        resolver: ModelResolver,
        versions: DatasetVersionService,
        datasets: DatasetStore,
        folder: Path,
        reports: Path,
    ) -> None:
        self._resolver = resolver
        self._versions = versions
        self._datasets = datasets
        self._folder = folder
        self._reports = reports

    def check(self, principal: Principal, request: Mapping[str, Any]) -> Draft:
        """``model`` is a version or a base model of the project, ``dataset_id`` a dataset version, ``split`` one
        of train, validation and test."""
        faults: list[Fault] = []
        split = request.get("split") or "test"
        if split not in SPLITS:
            faults.append(Fault("split", "unknown_split", f"must be one of: {', '.join(SPLITS)}"))
        project = principal.project_id
        found: dict[str, Any] = {}
        for key, find in (
            ("model", lambda name: self._resolver.subject(project, name)),
            ("dataset_id", lambda name: self._versions.version(principal, name)),
        ):
            try:
                found[key] = find(str(request.get(key) or ""))
            except AppError as error:
                faults.append(Fault(key, error.code, error.message))
        if faults:
            raise Invalid("the request has faults: nothing was started", faults=faults)
        subject, version = found["model"], found["dataset_id"]
        return Draft(
            name=f"{subject.name} on {version.reference}",
            config={"model": subject.name, "dataset_id": version.reference, "split": split},
            base_model=subject.base_model,
            dataset_digest=version.digest,
            dataset_id=version.dataset_id,
            dataset_number=version.number,
        )

    def begin(self, job: FineTuningJob, attempt: int, watch: Watch) -> Task:
        subject = watch.persist(partial(self._resolver.subject, job.project_id, job.config["model"]))
        with needs_room(DATA_FOLDER):
            prepared = self._datasets.prepare_version(job.dataset_digest, subject.seed)
        folder = self._folder / job.id
        folder.mkdir(parents=True, exist_ok=True)
        adapter = subject.adapter_folder
        job_file = {
            "model": subject.name,
            "base_model_folder": str(subject.model_folder()),
            "adapter_folder": None if adapter is None else str(adapter),
            "dataset_folder": prepared.folder,
            "dataset_digest": job.dataset_digest,
            "split": job.config["split"],
            "reasoning": subject.reasoning,
        }
        return Task(job_file, folder, str(folder))

    @contextmanager
    def taking_up(
        self, job: FineTuningJob, attempt: int, result: Mapping[str, Any], folder: Path
    ) -> Iterator[Finished]:
        """Keep every answer in ``<results>/evaluations/<job>.json``; the row has the scores and the first ones."""
        report = self._reports / f"{job.id}.json"
        report.parent.mkdir(parents=True, exist_ok=True)
        with needs_room(RUN_FOLDER):
            write_whole(report, json.dumps(result, ensure_ascii=False, indent=1))
        yield Finished({**result, "answers": result["answers"][:MOST_ANSWERS]})
        shutil.rmtree(folder, ignore_errors=True)
