"""Who did what to which: what leaves an entry, who reads it, and how."""

import csv
import io
import logging
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.audit.routes import COLUMNS, as_csv
from app.core.entities.audit import AuditEntry
from app.core.entities.identity import Role
from tests.databases import OTHER_PROJECT

NOW = datetime(2026, 3, 1, tzinfo=UTC)
FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def seen(twins):
    return [(entry.actor, entry.action, entry.object_id, entry.status) for entry in twins.audit.kept]


def entry(**changes):
    values = dict.fromkeys(("actor", "address", "action", "kind", "object_id", "request_id"), "x")
    return AuditEntry(
        **{"project_id": "default", "created_at": NOW, "user_id": None, "key_id": None, "status": 200}
        | values
        | changes
    )


# --- What leaves an entry ---


def test_a_change_and_a_refused_one(client, bearer, twins):
    viewer, developer = bearer(Role.VIEWER), bearer(Role.DEVELOPER)
    made = client.post("/api/v1/keys", json={"name": "laptop"}, headers={**viewer, "X-Request-ID": "r-1"})
    client.delete("/api/v1/models/support/aliases/champion", headers=viewer)
    client.delete("/api/v1/models/support/aliases/champion", headers=developer)
    client.put("/api/v1/models/support/aliases/champion", json={"version": "x"}, headers=developer)
    assert seen(twins) == [
        ("user0", "keys.create_key", made.json["id"], 201),
        ("user0", "models.remove_alias", "support/champion", 403),
        ("user1", "models.remove_alias", "support/champion", 404),
        ("user1", "models.set_alias", "support/champion", 422),
    ]
    first = twins.audit.kept[0]
    assert (first.project_id, first.user_id, first.kind, first.request_id) == ("default", "user-0", "key", "r-1")
    assert first.address == "127.0.0.1"
    assert made.json["key"] not in repr(twins.audit.kept)


def test_a_key_is_named(client, bearer, twins):
    made = client.post("/api/v1/keys", json={"name": "laptop"}, headers=bearer()).json
    client.post("/api/v1/auth/logout", headers={"Authorization": f"Bearer {made['key']}"})
    assert twins.audit.kept[-1].key_id == made["id"]


def test_reading_asking_and_strangers_leave_none(client, bearer, twins):
    headers = bearer()
    client.get("/api/v1/models", headers=headers)
    client.post("/api/v1/predict", json={"text": "hello"}, headers=headers)
    client.post("/v1/completions", json={"model": "x", "prompt": "y"}, headers=headers)
    client.post("/api/v1/keys", json={"name": "laptop"})
    client.delete("/api/v1/keys/x", headers={"Authorization": "Bearer nonsense"})
    client.post("/api/v1/nothing", headers=headers)
    assert seen(twins) == []


def test_log_ins(client, services, twins):
    services.accounts.create_user("alice", "correct horse battery", Role.DEVELOPER)
    made = client.post("/api/v1/auth/token", json={"username": "alice", "password": "correct horse battery"}).json
    client.post("/api/v1/auth/token", json={"username": "alice", "password": "wrong"})
    client.post("/api/v1/auth/token", json={"username": "b\nob", "password": "wrong"})
    client.post("/api/v1/auth/refresh", json={"refresh_token": made["refresh_token"]})
    client.post("/api/v1/auth/refresh", json={"refresh_token": made["refresh_token"]})
    assert seen(twins) == [
        ("alice", "auth.token", "", 200),
        ("alice", "auth.token", "", 401),
        ("b\ufffdob", "auth.token", "", 401),
        ("alice", "auth.refresh", "", 200),
        ("unknown", "auth.refresh", "", 401),
    ]
    projects = [entry.project_id for entry in twins.audit.kept]
    assert projects == ["default", None, None, "default", None]
    assert "battery" not in repr(twins.audit.kept)


def test_a_failure_inside_is_kept_too(client, bearer, twins, services, monkeypatch):
    headers = bearer()
    monkeypatch.setattr(services.api_keys._keys, "add", lambda key: 1 / 0)
    assert client.post("/api/v1/keys", json={"name": "laptop"}, headers=headers).status_code == 500
    assert seen(twins) == [("user0", "keys.create_key", "", 500)]


def test_an_entry_that_cannot_be_kept_is_in_the_log_whole(client, bearer, services, monkeypatch, caplog):
    monkeypatch.setattr(services.audit._repository, "add", lambda entry: 1 / 0)
    with caplog.at_level(logging.ERROR):
        made = client.post("/api/v1/keys", json={"name": "laptop"}, headers=bearer())
    assert made.status_code == 201
    assert "keys.create_key" in caplog.text
    assert made.json["id"] in caplog.text


# --- Who reads it ---


@pytest.fixture
def filled(twins):
    for number, project in enumerate(["default", OTHER_PROJECT, None] * 2):
        twins.audit.add(entry(project_id=project, actor=f"a{number}", status=200 if number < 3 else 403))


def actors(answer):
    return [one["actor"] for one in answer.json["data"]]


def test_an_admin_reads_the_projects_own(client, bearer, filled):
    admin = bearer(Role.ADMIN)
    assert actors(client.get("/api/v1/audit", headers=admin)) == ["a3", "a0"]
    other = client.get(f"/api/v1/audit?project={OTHER_PROJECT}", headers=admin)
    assert (other.status_code, other.json["code"]) == (404, "project_not_found")
    assert client.get("/api/v1/audit?all=true", headers=admin).status_code == 403
    assert client.get("/api/v1/audit?all=true&format=csv", headers=admin).status_code == 403
    assert client.get("/api/v1/audit", headers=bearer(Role.DEVELOPER)).status_code == 403


def test_an_operator_reads_any(caller, filled):
    assert actors(caller("GET", "/api/v1/audit?all=true")) == ["a5", "a4", "a3", "a2", "a1", "a0"]
    assert actors(caller("GET", f"/api/v1/audit?project={OTHER_PROJECT}")) == ["a4", "a1"]


def test_pages_and_filters(caller, filled):
    first = caller("GET", "/api/v1/audit?all=true&limit=4")
    second = caller("GET", f"/api/v1/audit?all=true&limit=4&after={first.json['next']}")
    assert actors(first) + actors(second) == ["a5", "a4", "a3", "a2", "a1", "a0"]
    assert second.json["next"] is None
    assert actors(caller("GET", "/api/v1/audit?outcome=refused")) == ["a3"]
    assert actors(caller("GET", "/api/v1/audit?actor=a0&from=2026-01-01T00:00:00Z")) == ["a0"]
    assert actors(caller("GET", "/api/v1/audit?from=2026-03-01T00:00:01Z")) == []


@pytest.mark.parametrize("query", ["from=yesterday", "from=2026-01-01T00:00:00", "limit=0", "outcome=x", "x=1"])
def test_what_is_no_query(caller, query):
    assert caller("GET", f"/api/v1/audit?{query}").status_code == 422


# --- As csv ---


@pytest.mark.parametrize(
    ("query", "headers"), [("&format=csv", {}), ("", {"Accept": "text/csv"}), ("&limit=1&format=csv", {})]
)
def test_csv_has_all_of_it(caller, filled, query, headers):
    answer = caller("GET", f"/api/v1/audit?all=true{query}", headers=headers)
    assert answer.content_type == "text/csv; charset=utf-8"
    lines = list(csv.DictReader(io.StringIO(answer.get_data(as_text=True), newline="")))
    assert [line["actor"] for line in lines] == ["a5", "a4", "a3", "a2", "a1", "a0"]
    assert tuple(lines[0]) == COLUMNS


CELLS = st.text(st.sampled_from("=+-@\t\r\n＝＋－＠'\",;ab \0é") | st.characters(codec="utf-8"), max_size=8)


@given(st.lists(st.tuples(CELLS, CELLS), max_size=3))
def test_no_cell_begins_a_formula_and_each_reads_back(cells):
    written = "".join(as_csv(entry(actor=actor, object_id=object_id) for actor, object_id in cells))
    assert not written or all(line.startswith('"') for line in csv_lines(written))
    rows = list(csv.reader(io.StringIO(written, newline=""), strict=True))[1:]
    assert not any(cell.startswith(FORMULA) for row in rows for cell in row)
    columns = COLUMNS.index("actor"), COLUMNS.index("object_id")
    assert [tuple(row[column].removeprefix("'") for column in columns) for row in rows] == cells


def csv_lines(written):
    """Each record as it is written: quotes inside are doubled, so their number is even at its end."""
    record = ""
    for piece in written.split("\r\n")[:-1]:
        record = f"{record}\r\n{piece}" if record else piece
        if record.count('"') % 2 == 0:
            yield record
            record = ""


def test_a_long_log_is_written_in_pieces():
    assert len(list(as_csv(entry() for _ in range(1000)))) > 5
