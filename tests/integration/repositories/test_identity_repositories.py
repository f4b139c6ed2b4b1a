"""What every repository of users, keys and sessions does."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.core.entities.api_keys import ApiKey
from app.core.entities.identity import Member, Membership, Project, Role, Scope, Session, User
from app.core.errors import Conflict, NotFound

NOW = datetime(2026, 3, 3, tzinfo=UTC)
ZOE, AMY = User("u1", "zoe", "hash", NOW), User("u2", "amy", "", NOW, is_operator=True, is_service=True)
KEY = ApiKey("key-1", "default", "u1", "laptop", "h1", "llmft_abcd…", (Scope.INFER,), "u1", NOW, None)
SESSION = Session("s1", "u1", "default", "handle", "secret", NOW, NOW + timedelta(days=1))


@pytest.fixture
def users(repositories):
    repositories.users.add(ZOE, "default", Role.ADMIN)
    repositories.users.add(AMY, "other", Role.VIEWER)
    return repositories.users


def test_members_of_a_project(users):
    assert users.member("u1", "default") == Member(ZOE, Role.ADMIN)
    assert users.member("u2", "other").reach is Role.OPERATOR
    assert users.member("u1", "other") is None
    users.set_role("u2", "default", Role.DEVELOPER)
    assert users.members("default") == [Member(AMY, Role.DEVELOPER), Member(ZOE, Role.ADMIN)]
    users.set_role("u2", "default", Role.VIEWER)
    assert users.memberships("u2")[1] == Membership("u2", "default", Role.VIEWER)
    assert users.remove_member("u2", "default") is True
    assert users.remove_member("u2", "default") is False
    assert users.members("default") == [Member(ZOE, Role.ADMIN)]
    with pytest.raises(NotFound):
        users.set_role("u1", "nowhere", Role.VIEWER)


def test_the_last_admin_stays(users):
    for change in (
        lambda: users.set_role("u1", "default", Role.VIEWER),
        lambda: users.remove_member("u1", "default"),
    ):
        with pytest.raises(Conflict):
            change()
    users.set_role("u1", "default", Role.ADMIN)
    assert users.members("default") == [Member(ZOE, Role.ADMIN)]


def test_of_two_admins_who_remove_each_other_one_stays(users):
    users.set_role("u2", "default", Role.ADMIN)

    def remove(user_id):
        try:
            return users.remove_member(user_id, "default")
        except Conflict:
            return False

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(remove, ["u1", "u2"])) == [False, True]
    assert len(users.members("default")) == 1


def test_projects(users):
    users.add_project(Project("another", NOW))
    assert [project.id for project in users.projects()] == ["another", "default", "other"]
    assert users.projects()[0] == Project("another", NOW)
    with pytest.raises(Conflict):
        users.add_project(Project("another", NOW))


def test_keys_are_found_by_hash_and_listed_by_project_and_owner(users, repositories):
    keys = repositories.keys
    newer = replace(KEY, id="key-2", user_id="u2", hash="h2", scopes=(), created_at=NOW + timedelta(seconds=1))
    foreign = replace(KEY, id="key-3", project_id="other", hash="h3", expires_at=NOW)
    for key in (KEY, newer, foreign):
        keys.add(key)
    assert [keys.by_hash(text) for text in ("h1", "h2", "h3", "h4")] == [KEY, newer, foreign, None]
    assert keys.list("default") == [newer, KEY]
    assert keys.list("default", "u1") == [KEY]
    assert keys.list("other") == [foreign]


def test_a_key_is_revoked_once_by_whom_it_belongs_to(users, repositories):
    keys = repositories.keys
    keys.add(KEY)
    assert keys.revoke("other", KEY.id, NOW) is False
    assert keys.revoke("default", "key-9", NOW) is False
    assert keys.revoke("default", KEY.id, NOW, "u2") is False
    assert keys.by_hash("h1") == KEY
    assert keys.revoke("default", KEY.id, NOW, "u1") is True
    assert keys.revoke("default", KEY.id, NOW + timedelta(days=1)) is True
    assert keys.by_hash("h1") == replace(KEY, revoked_at=NOW)
    keys.used(KEY.id, NOW)
    assert keys.by_hash("h1").last_used_at == NOW


def test_a_session_goes_on_with_its_newest_secret_alone(users, repositories):
    sessions = repositories.sessions
    sessions.add(SESSION)
    assert sessions.get("s1") == SESSION
    assert sessions.get("s2") is None
    assert sessions.rotate("nobody's", "secret", "next", NOW) is None
    assert sessions.rotate("handle", "secret", "second", NOW) == replace(SESSION, secret_hash="second")
    assert sessions.rotate("handle", "secret", "third", NOW).revoked_at == NOW
    later = NOW + timedelta(hours=1)
    assert sessions.rotate("handle", "second", "third", later) == sessions.get("s1")
    assert sessions.get("s1") == replace(SESSION, secret_hash="second", revoked_at=NOW)


def test_of_two_who_refresh_at_once_one_is_a_thief(users, repositories):
    sessions = repositories.sessions
    sessions.add(SESSION)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda next_one: sessions.rotate("handle", "secret", next_one, NOW), "ab"))
    assert sorted(session.revoked_at is None for session in found) == [False, True]
    assert sessions.get("s1").revoked_at == NOW


def test_an_expired_session_is_over_and_goes_with_the_next_log_in(users, repositories):
    sessions, late = repositories.sessions, NOW + timedelta(days=2)
    sessions.add(SESSION)
    assert sessions.rotate("handle", "secret", "next", late) == SESSION
    sessions.add(replace(SESSION, id="s2", user_id="u2", handle_hash="h2", created_at=late))
    assert sessions.get("s1") == SESSION
    sessions.add(replace(SESSION, id="s3", handle_hash="h3", created_at=late, expires_at=late))
    assert sessions.get("s1") is None


def test_sessions_are_revoked_one_by_one_and_all_of_a_user(users, repositories):
    sessions = repositories.sessions
    mine = [replace(SESSION, id=f"s{n}", handle_hash=f"h{n}") for n in range(3)]
    foreign = replace(SESSION, id="s9", handle_hash="h9", user_id="u2")
    for session in (*mine, foreign):
        sessions.add(session)
    sessions.revoke("s0", NOW)
    sessions.revoke("s0", NOW + timedelta(hours=1))
    assert sessions.get("s0").revoked_at == NOW
    assert sessions.revoke_all("u1", NOW + timedelta(hours=2)) == 2
    assert sessions.get("s0").revoked_at == NOW
    assert sessions.get("s1").revoked_at == NOW + timedelta(hours=2)
    assert sessions.get("s9") == foreign


def test_what_changes_of_a_user(users):
    users.set_password_hash("u1", "another")
    users.set_external_id("u1", "https://login#1")
    users.set_disabled("u1", NOW)
    changed = replace(ZOE, password_hash="another", external_id="https://login#1", disabled_at=NOW)
    assert users.by_external_id("https://login#1") == changed
    assert users.by_external_id("https://login#2") is None
    with pytest.raises(Conflict) as taken:
        users.set_external_id("u2", "https://login#1")
    assert taken.value.code == "subject_taken"
    with pytest.raises(Conflict) as taken:
        users.add(replace(ZOE, id="u3", username="zac", external_id="https://login#1"), "default", Role.VIEWER)
    assert taken.value.code == "subject_taken"
    users.set_disabled("u1", None)
    users.set_external_id("u1", None)
    assert users.by_username("zoe") == replace(ZOE, password_hash="another")


def test_of_two_operators_who_disable_each_other_one_stays(users):
    users.add(replace(AMY, id="u3", username="zac"), "default", Role.ADMIN)

    def disable(user_id):
        try:
            users.set_disabled(user_id, NOW)
        except Conflict as error:
            assert error.code == "last_operator"  # noqa: PT017
            return False
        return True

    with ThreadPoolExecutor() as pool:
        assert sorted(pool.map(disable, ["u2", "u3"])) == [False, True]
    assert disable("u1")


def test_all_keys_of_a_user_are_revoked_in_every_project(repositories, users):
    keys = repositories.keys
    for number, (project, user) in enumerate([("default", "u1"), ("other", "u1"), ("other", "u2")]):
        keys.add(replace(KEY, id=f"key-{number}", hash=f"hash-{number}", project_id=project, user_id=user))
    assert keys.revoke_all("u1", NOW) == 2
    assert keys.revoke_all("u1", NOW) == 0
    assert [key.revoked_at for key in keys.list("other")] == [NOW, None]
