"""The schema: from nothing to this code's, at once from several processes, on both databases."""

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from flask import Flask
from flask_migrate import downgrade, upgrade
from sqlalchemy import column, create_engine, func, inspect, select, table, text
from sqlalchemy.exc import IntegrityError

from app.core.entities.identity import DEFAULT_PROJECT_ID, Role, User
from app.core.entities.models import ModelAlias
from app.core.errors import Unavailable
from app.extensions import Base, db, migrate
from app.repositories.database import (
    MIGRATIONS,
    Database,
    SqlDatabaseHealth,
    _revisions,
    configure_engine,
    migrate_empty,
    schema_fault,
)
from app.repositories.jobs import SqlJobRepository
from app.repositories.mapping import job_row, version_row
from app.repositories.model_versions import SqlModelVersionRepository
from app.repositories.tables import JobRow, ModelVersionRow, ProjectRow
from app.repositories.users import SqlUserRepository

TENANT_DATA = [
    "jobs",
    "job_events",
    "job_metric_chunks",
    "model_versions",
    "model_aliases",
    "usage",
    "datasets",
    "dataset_versions",
    "dataset_tags",
    "api_keys",
    "sessions",
    "kept_requests",
]
MIGRATE = """
import sys
from sqlalchemy import create_engine
from app.repositories.database import migrate_empty
print("ready", flush=True)
sys.stdin.readline()
print(migrate_empty(create_engine(sys.argv[1])))
"""


@pytest.fixture
def app(empty_engine):
    """As little of an app as `flask db` needs."""
    app = Flask("migrations")
    app.config["SQLALCHEMY_DATABASE_URI"] = empty_engine.url.render_as_string(hide_password=False)
    db.init_app(app)
    migrate.init_app(app, db, directory=str(MIGRATIONS))
    with app.app_context():
        yield app
        db.engine.dispose()


def test_an_empty_database_gets_this_codes_schema_once(empty_engine):
    assert "flask --app run db upgrade" in SqlDatabaseHealth(empty_engine).check()
    assert migrate_empty(empty_engine) is True
    assert SqlDatabaseHealth(empty_engine).check() is None
    assert migrate_empty(empty_engine) is False
    with Database(empty_engine).read() as session:
        assert session.scalars(select(ProjectRow.id)).all() == [DEFAULT_PROJECT_ID]


def test_the_migrations_make_what_the_models_say(empty_engine):
    migrate_empty(empty_engine)
    with empty_engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_tenant_data_names_its_project(empty_engine):
    migrate_empty(empty_engine)
    schema = inspect(empty_engine)
    for name in TENANT_DATA:
        (column,) = [c for c in schema.get_columns(name) if c["name"] == "project_id"]
        assert not column["nullable"]
        assert "projects" in {key["referred_table"] for key in schema.get_foreign_keys(name)}
        led_by = [index["column_names"][0] for index in schema.get_indexes(name)]
        led_by += [unique["column_names"][0] for unique in schema.get_unique_constraints(name)]
        assert "project_id" in led_by


def test_flask_db_upgrades_and_downgrades(app, empty_engine):
    upgrade()
    assert schema_fault(empty_engine) is None
    upgrade()
    downgrade(revision="base")
    assert set(inspect(empty_engine).get_table_names()) == {"alembic_version"}
    assert "no schema" in schema_fault(empty_engine)
    assert migrate_empty(empty_engine) is False  # not empty: an operator was here
    upgrade()
    assert schema_fault(empty_engine) is None


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004", "0005"])
def test_jobs_of_an_earlier_schema_are_kept(app, empty_engine, make_job, revision):
    upgrade(revision=revision)
    job = make_job()
    columns = {c["name"] for c in inspect(empty_engine).get_columns("jobs")}
    row = {name: value for name, value in vars(job_row(job)).items() if name in columns}
    row |= {
        "cancel_requested": False,
        "attempts": 0,
        "fence": 0,
        "heartbeat": 0,
        "lease_seconds": 0,
        "last_event": 0,
        "metrics": {},
    }
    known = (column(c.name, c.type) for c in JobRow.__table__.c if c.name in columns)
    jobs = table("jobs", *known, column("metrics", JobRow.__table__.c.result.type))
    with empty_engine.begin() as connection:
        connection.execute(jobs.insert(), row)
    assert "older than this code" in schema_fault(empty_engine)
    upgrade()
    assert SqlJobRepository(empty_engine).get("default", job.id) == job
    downgrade(revision=revision)
    assert {c["name"] for c in inspect(empty_engine).get_columns("jobs")} == columns


def test_versions_of_an_earlier_schema_are_kept(app, empty_engine, make_job, make_version):
    upgrade(revision="0004")
    version = replace(make_version(make_job()), number=1, job_id=None)
    columns = {c["name"] for c in inspect(empty_engine).get_columns("model_versions")}
    row = {name: value for name, value in vars(version_row(version)).items() if name in columns}
    rows = table(
        "model_versions", *(column(c.name, c.type) for c in ModelVersionRow.__table__.c if c.name in columns)
    )
    with empty_engine.begin() as connection:
        connection.execute(rows.insert(), row)
    upgrade()
    versions = SqlModelVersionRepository(empty_engine)
    assert versions.get("default", version.id) == version
    alias = ModelAlias("default", version.name, "champion", {1: 1}, None, version.created_at)
    versions.set_alias(alias)
    assert versions.aliases("default", version.name) == [alias]
    downgrade(revision="0004")
    assert {c["name"] for c in inspect(empty_engine).get_columns("model_versions")} == columns
    with empty_engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(rows)) == 1


def test_admins_of_the_first_project_become_operators(app, empty_engine):
    upgrade(revision="0005")
    with empty_engine.begin() as connection:
        connection.execute(text("INSERT INTO projects (id, name, created_at) VALUES ('b', 'b', '2026-01-01')"))
        for name, role, project in (
            ("zoe", "admin", "default"),
            ("amy", "developer", "default"),
            ("bob", "admin", "b"),
        ):
            values = {"name": name, "role": role, "project": project}
            user = "INSERT INTO users (id, username, password_hash, created_at) VALUES (:n, :n, 'h', '2026-01-01')"
            connection.execute(text(user), {"n": name})
            connection.execute(
                text("INSERT INTO memberships VALUES (:name, :project, :role, '2026-01-01')"), values
            )
    upgrade()
    users = SqlUserRepository(empty_engine)
    assert [(user.username, user.is_operator, user.is_service) for user in users.list()] == [
        ("amy", False, False),
        ("bob", False, False),
        ("zoe", True, False),
    ]
    users.add(User("u9", "ci@b", "", datetime.now(UTC), is_service=True), "b", Role.VIEWER)
    downgrade(revision="0005")
    assert {c["name"] for c in inspect(empty_engine).get_columns("users")} == {
        *("id", "username", "password_hash", "created_at")
    }
    with empty_engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM users")) == 4


def test_flask_db_prints_sql(app, capsys):
    upgrade(sql=True)
    printed = capsys.readouterr().out
    assert "CREATE TABLE jobs" in printed
    assert "INSERT INTO projects" in printed


def test_several_processes_may_migrate_at_once(empty_engine):
    url = empty_engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", MIGRATE, url]
    pipe = subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [process.communicate(timeout=60)[0].strip() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert sorted(answers) == ["False", "False", "True"]
    assert schema_fault(empty_engine) is None


def test_a_migration_that_fails_leaves_nothing(empty_engine, monkeypatch):
    monkeypatch.setattr("alembic.op.bulk_insert", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        migrate_empty(empty_engine)
    assert inspect(empty_engine).get_table_names() == []


@pytest.mark.parametrize(("revision", "says"), [("9999", "newer than this code"), (None, "has no schema")])
def test_another_schema_is_named_with_what_mends_it(empty_engine, revision, says):
    migrate_empty(empty_engine)
    with empty_engine.begin() as connection:
        connection.execute(text("DELETE FROM alembic_version"))
        if revision:
            connection.execute(text("INSERT INTO alembic_version VALUES (:v)"), {"v": revision})
    fault = schema_fault(empty_engine)
    assert says in fault
    assert "flask --app run db" in fault
    assert "\n" not in fault


def test_an_older_schema_asks_for_the_upgrade(empty_engine, monkeypatch):
    migrate_empty(empty_engine)
    head = _revisions()[0]
    monkeypatch.setattr("app.repositories.database._revisions", lambda: ("9999", head))
    says = f"({head}) is older than this code (9999): run `flask --app run db upgrade`"
    assert says in schema_fault(empty_engine)


def test_a_database_that_is_away_is_unavailable(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'no such folder' / 'app.db'}")
    assert "does not answer" in SqlDatabaseHealth(engine).check()
    with pytest.raises(Unavailable) as refused, Database(engine).read() as session:
        session.scalars(select(ProjectRow)).all()
    assert str(tmp_path) not in refused.value.message


def test_sqlite_is_set_up_once_for_each_connection(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'app.db'}")
    for _ in range(3):
        configure_engine(engine)
    begun = []
    with engine.connect() as connection:
        connection.connection.driver_connection.set_trace_callback(begun.append)
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
        assert connection.scalar(text("PRAGMA busy_timeout")) == 30_000
        assert [line for line in begun if line.startswith("BEGIN")] == ["BEGIN DEFERRED"]
        connection.connection.driver_connection.set_trace_callback(None)
    engine.dispose()


def test_foreign_keys_hold_after_a_migration(empty_engine, make_job):
    migrate_empty(empty_engine)
    with pytest.raises(IntegrityError), Database(empty_engine).write() as session:
        session.add(job_row(make_job(project_id="nowhere")))
    with Database(empty_engine).read() as session:
        assert session.scalars(select(JobRow)).all() == []


def test_a_reader_is_not_stopped_by_a_writer(empty_engine):
    migrate_empty(empty_engine)
    database = Database(empty_engine)
    with database.write() as writer:
        writer.add(ProjectRow(id="new", name="new", created_at=writer.get(ProjectRow, "default").created_at))
        writer.flush()
        with database.read() as reader:
            assert reader.scalars(select(ProjectRow.id)).all() == ["default"]
    with database.read() as reader:
        assert len(reader.scalars(select(ProjectRow.id)).all()) == 2
