"""Jobs through the queue beside plain Celery: ``python -m benchmarks.jobs``.

The trainer is the double, which has nothing to train: what is left is the way there, from submission to the first
line of the trainer's own code, and jobs a second. The peer is Celery on the same broker, whose task starts the
same process (``benchmarks/peer_celery.py``).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles

from app.bootstrap import Settings
from app.core.entities.jobs import JobState
from app.implementations.queue.process_tree import kill_session
from app.utils.clock import boottime
from benchmarks.arithmetic import markdown_table
from benchmarks.peer_celery import TASK, peer
from benchmarks.processes import ROOT, say
from tests.running_service import services_in
from tests.servers import PostgresServer, RedisServer

FILES, SERVERS = "SQLite, files", "PostgreSQL, Redis"
OURS, PEER = "this project", "plain Celery"
SLOTS = 2
UNFINISHED = (JobState.VALIDATING_FILES, JobState.QUEUED, JobState.RUNNING)
LONGEST = 600.0  # seconds for anything


@dataclass
class Runs:
    """Of one system on one stack: seconds from submission to start, a list a round, and jobs a second."""

    delays: list[list[float]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Subject:
    """``submit`` answers once a job is handed in; ``finished`` says whether all are done for good."""

    marks: Path
    submit: Callable[[], object]
    finished: Callable[[int], bool]

    def starts(self) -> list[float]:
        """Boot times of the first lines of the trainers."""
        return [float(line.split()[3]) for line in self._lines() if line.startswith("start")]

    def ends(self) -> int:
        return sum(line.startswith("end") for line in self._lines())

    def _lines(self) -> list[str]:
        return self.marks.read_text().splitlines() if self.marks.exists() else []


def main() -> None:
    options = _options()
    os.environ |= {"DOTENV_PATH": os.devnull, "FLASK_SKIP_DOTENV": "1"}
    found: dict[tuple[str, str], Runs] = {}
    with tempfile.TemporaryDirectory(prefix="jobs-", dir="/tmp") as name, ExitStack() as servers:
        folder = Path(name)
        redis = postgres = None
        if SERVERS in options.stacks:
            for server in ("redis", "postgres"):
                (folder / server).mkdir()
            redis = servers.enter_context(RedisServer(folder / "redis"))
            folder.chmod(0o755)  # PostgreSQL runs as a user of its own
            postgres = servers.enter_context(PostgresServer(folder / "postgres"))
        for number in range(1, options.rounds + 1):
            for stack in options.stacks:
                for who, system in ((OURS, _ours), (PEER, _peer)):
                    say(f"round {number}: {who} on {stack}")
                    if redis is not None:
                        redis.flush()
                    place = folder / "subject"
                    urls = (
                        (redis.url, _new_database(postgres)) if stack == SERVERS and redis and postgres else None
                    )
                    with system(place, urls) as subject:
                        _measure(subject, options.delays, options.jobs, found.setdefault((stack, who), Runs()))
                    shutil.rmtree(place)
    _save(found, options)


def _measure(subject: Subject, delays: int, jobs: int, runs: Runs) -> None:
    _one(subject)  # whatever comes with the first
    runs.delays.append([_one(subject) for _ in range(delays)])
    before = 1 + delays
    started = time.perf_counter()
    for _ in range(jobs):
        subject.submit()
    _wait(lambda: subject.finished(before + jobs))
    runs.rates.append(jobs / (time.perf_counter() - started))


def _one(subject: Subject) -> float:
    """Seconds from the submission of a job, while no other is there, to its trainer's start."""
    before = len(subject.starts())
    submitted = boottime()
    subject.submit()
    _wait(lambda: subject.finished(before + 1))
    return subject.starts()[before] - submitted


@contextmanager
def _ours(place: Path, urls: tuple[str, str] | None) -> Iterator[Subject]:
    """A service with its own defaults, and one worker."""
    defaults = {name: Settings.model_fields[name].default for name in ("poll_seconds", "lease_seconds")}
    servers = {"redis_url": urls[0], "database_url": urls[1]} if urls else {}
    place.mkdir()
    with services_in(place) as make:
        service = make(worker_slots=SLOTS, **defaults, **servers)
        service.worker(LOG_LEVEL="WARNING")

        def finished(count: int) -> bool:
            if subject.ends() < count:
                return False
            counts = service.services.monitoring.job_counts()
            return not any(counts[state] for state in UNFINISHED)

        marks = service.settings.results_dir / "marks.txt"
        subject = Subject(marks, lambda: service.submit("double-ok"), finished)
        yield subject


@contextmanager
def _peer(place: Path, urls: tuple[str, str] | None) -> Iterator[Subject]:
    (place / "results").mkdir(parents=True)
    redis_url = urls[0] if urls else None
    celery = peer(redis_url, place)
    sent = iter(range(10**9))
    environment = {**os.environ, "PEER_FOLDER": str(place), **({"PEER_REDIS": redis_url} if redis_url else {})}
    command = ["-m", "celery", "-A", "benchmarks.peer_celery", "worker", "--concurrency", str(SLOTS)]
    with (place / "log.txt").open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, *command, "--without-mingle"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        subject = Subject(
            place / "results" / "marks.txt",
            lambda: celery.send_task(TASK, args=[next(sent)]),
            lambda count: subject.ends() >= count,
        )
        yield subject
    finally:
        kill_session(worker.pid)
        worker.wait()


def _new_database(server: PostgresServer | None) -> str:
    import psycopg

    assert server is not None
    name = f"jobs_{time.time_ns()}"
    with psycopg.connect(server.url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload,unused-ignore]
    return server.database(name)


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + LONGEST
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"not done within {LONGEST:.0f} s")
        time.sleep(0.01)


def _save(found: dict[tuple[str, str], Runs], options: argparse.Namespace) -> None:
    """Prints a Markdown table, and writes every reading to ``results/benchmarks/jobs-<time>.json``."""
    head = ("", "submission to start, ms", "95 of 100 within, ms", "jobs/s")
    table = markdown_table(head, [(f"{stack}: {who}", *_cells(runs)) for (stack, who), runs in found.items()])
    print(table)
    folder = ROOT / "results" / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    readings = [
        {"stack": stack, "who": who, "delays": runs.delays, "rates": runs.rates}
        for (stack, who), runs in found.items()
    ]
    kept = {"cores": os.cpu_count(), "slots": SLOTS, "jobs": options.jobs, "readings": readings}
    target = folder / f"jobs-{datetime.now():%Y%m%d-%H%M%S}.json"
    target.write_text(json.dumps(kept, indent=2) + "\n")
    say(f"every reading: {target.relative_to(ROOT)}")


def _cells(runs: Runs) -> tuple[str, str, str]:
    """Each the middle of the rounds, and from the least to the most."""
    middles = [1000 * median(delays) for delays in runs.delays]
    late = [1000 * percentile_95(delays) for delays in runs.delays]
    return _spread(middles, 0), _spread(late, 0), _spread(runs.rates, 2)


def percentile_95(values: list[float]) -> float:
    return quantiles(values, n=20, method="inclusive")[-1]


def _spread(values: list[float], digits: int) -> str:
    middle, least, most = (f"{value:,.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle} ({least}–{most})" if len(values) > 1 else middle


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--delays", type=int, default=20, help="jobs that are submitted one by one, in a round")
    parser.add_argument("--jobs", type=int, default=60, help="jobs that are submitted at once, in a round")
    parser.add_argument("--stacks", nargs="+", choices=(FILES, SERVERS), default=(FILES, SERVERS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
