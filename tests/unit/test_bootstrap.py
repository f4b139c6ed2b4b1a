"""The composition root."""

import importlib.util
import logging
import stat
from pathlib import Path

import pytest
import yaml

from app import create_app
from app.bootstrap import (
    SettingsError,
    configure_logging,
    load_settings,
    load_strategy_options,
    one_line,
    prepare_instance,
)
from app.core.entities.training_config import TrainingConfig
from app.core.errors import Fault, Invalid
from app.core.interfaces.storage import JobRepository
from app.extensions import db
from app.registries import FACTORIES

NAMES = [(factory, name) for factory in FACTORIES for name in factory.names()]


@pytest.mark.parametrize(("factory", "name"), NAMES, ids=[f"{f.kind} {n}" for f, n in NAMES])
def test_every_string_names_something(factory, name):
    assert callable(factory.load(name))


@pytest.fixture
def quiet(settings, tmp_path):
    file = tmp_path / "logging.yaml"
    file.write_text("version: 1\ndisable_existing_loggers: false\n")
    return settings.model_copy(update={"logging_file": file})


@pytest.fixture
def started(quiet):
    """An app on the real thing: SQLite, the filesystem broker, files."""
    app = create_app(quiet)
    yield app
    with app.app_context():
        db.engine.dispose()


def test_a_new_instance_is_made_ready_once(started, quiet):
    quiet.instance_dir.chmod(0o755)
    password = prepare_instance(started)
    assert len(password) >= 12
    assert stat.S_IMODE(quiet.instance_dir.stat().st_mode) == 0o700
    assert prepare_instance(started) is None
    client = started.test_client()
    assert client.get("/api/v1/monitor/ready").json == {"ready": True, "reasons": [], "engines": []}
    token = client.post("/api/v1/auth/token", json={"username": "admin", "password": password}).json[
        "access_token"
    ]
    answer = client.get("/api/v1/models", headers={"Authorization": f"Bearer {token}"})
    assert answer.json == {"data": []}


def test_the_admins_password_may_be_given(quiet):
    settings = type(quiet).model_validate({**quiet.model_dump(), "admin_password": "correct horse battery"})
    app = create_app(settings)
    assert prepare_instance(app) is None
    body = {"username": "admin", "password": "correct horse battery"}
    assert app.test_client().post("/api/v1/auth/token", json=body).status_code == 200
    with app.app_context():
        db.engine.dispose()


def test_another_schema_stops_the_start(started):
    prepare_instance(started)
    with started.app_context(), db.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'of another code'")
    with pytest.raises(SettingsError, match="flask --app run db"):
        prepare_instance(started)
    answer = started.test_client().get("/api/v1/monitor/ready")
    assert answer.status_code == 503
    assert "schema" in answer.json["reasons"][0]


def test_a_database_out_of_reach_stops_the_start(quiet):
    url = "postgresql://nobody@127.0.0.1:1/nothing?connect_timeout=2"
    app = create_app(quiet.model_copy(update={"database_url": url}))
    with pytest.raises(SettingsError, match="does not answer"):
        prepare_instance(app)
    assert app.test_client().get("/api/v1/monitor/ready").status_code == 503


def test_services_share_their_repositories(started):
    services = started.extensions["services"]
    jobs = services.execution._jobs
    assert isinstance(jobs, JobRepository)
    others = (services.jobs, services.job_records, services.limits, services.monitoring)
    assert all(service._jobs is jobs for service in others)


def test_one_line_holds_the_first_faults():
    faults = [Fault(f"row {n}", "x", "no\nanswer") for n in range(12)]
    line = one_line(Invalid("the data has faults", faults=faults))
    assert line.startswith("the data has faults: row 0: no answer; row 1:")
    assert line.endswith("row 9: no answer (and 2 more)")
    assert "\n" not in line
    assert one_line(SettingsError("a\n  b")) == "a b"


def test_logging_follows_the_file_and_the_level(settings, tmp_path):
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        configure_logging(settings.model_copy(update={"log_level": "WARNING"}))
        (handler,) = root.handlers
        assert root.level == logging.WARNING
        record = logging.LogRecord("a", logging.WARNING, "f", 1, "text", (), None)
        assert handler.filter(record)
        assert "WARNING a [-] text" in handler.format(record)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def test_every_yaml_of_logging_names_what_exists(settings):
    scheme = yaml.safe_load(settings.logging_file.read_text())
    for entry in scheme["filters"].values():
        module, _, _name = entry["()"].rpartition(".")
        assert importlib.util.find_spec(module)


def test_relative_places_start_at_the_repository(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("base_models", "train_config", "logging"):
        monkeypatch.setenv(f"{name.upper()}_FILE", f"config/{name}.yaml")
    monkeypatch.setenv("RESULTS_DIR", "elsewhere")
    settings = load_settings()
    root = Path(__file__).resolve().parents[2]
    assert settings.results_dir == root / "elsewhere"
    assert all(getattr(settings, f"{name}_file").is_file() for name in ("base_models", "train_config", "logging"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cpu_threads": 4, "worker_slots": 3}, "3 trainers, .* 4 cores: at most 2"),
        ({"queues": ["nightly"]}, "queues: must name default"),
        ({"worker_queues": ["nightly", "default"]}, "worker_queues: not among queues: nightly"),
        ({"worker_queues": ["Nightly"]}, "worker_queues"),
        ({"project_max_running": 0, "project_max_queued": -1}, "project_max_running(.|\n)*project_max_queued"),
        ({"worker_gpus": ["0, 1"]}, "worker_gpus"),
        ({"drain_seconds": -1}, "drain_seconds"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings, message):
    with pytest.raises(SettingsError, match=message):
        load_settings(**settings)


@pytest.mark.parametrize(
    ("cores", "slots", "light", "threads"),
    [
        (1, 1, 1, (1, 0)),  # one core is everybody's
        (2, 1, 1, (1, 0)),  # no core is left beside the engine's and the trainer's
        (4, 1, 1, (1, 1)),
        (4, 2, 1, (1, 0)),
        (8, 1, 1, (3, 1)),
        (8, 1, 16, (1, 3)),  # what the engine and the trainer leave
        (16, 2, 2, (3, 2)),
        (16, 1, 0, (8, 0)),
    ],
)
def test_light_slots_have_their_threads_and_all_fit_the_cores(cores, slots, light, threads):
    settings = load_settings(cpu_threads=cores, worker_slots=slots, worker_light_slots=light)
    assert (settings.trainer_threads, settings.light_threads) == threads
    used = settings.engine_threads + slots * settings.trainer_threads + settings.light_threads
    assert used <= max(2, cores)


def test_slots_on_gpus_need_no_cores():
    assert load_settings(cpu_threads=2, worker_slots=4, worker_gpus=["0", "1", "2", "3"]).worker_slots == 4


@pytest.mark.parametrize(("strategy", "zero_stage"), [("deepspeed", 2), ("deepspeed", 3), ("fsdp", 2), ("ddp", 2)])
def test_a_strategys_own_file_is_found(strategy, zero_stage):
    options = load_strategy_options(TrainingConfig(strategy=strategy, zero_stage=zero_stage))
    if strategy == "deepspeed":
        assert options["zero_optimization"]["stage"] == zero_stage
    else:
        assert set(options) == ({"reshard_after_forward"} if strategy == "fsdp" else set())


@pytest.mark.parametrize("text", ["- a list", "a: [", None])
def test_a_faulty_file_of_a_strategy_is_named(tmp_path, monkeypatch, text):
    monkeypatch.setattr("app.bootstrap.CONFIG_DIR", tmp_path)
    if text is not None:
        (tmp_path / "fsdp.yaml").write_text(text)
    with pytest.raises(Invalid, match=r"config/fsdp\.yaml"):
        load_strategy_options(TrainingConfig(strategy="fsdp"))
