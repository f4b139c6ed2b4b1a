"""API keys: their shape, whose they are, what they open and until when."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.core.entities.api_keys import digest_of, is_key_text, new_key_text
from app.core.entities.identity import Principal, Role, Scope
from app.core.errors import Forbidden, Invalid, NotFound, Unauthorized, Unavailable
from app.repositories.tables import ApiKeyRow

PASSWORD = "correct horse battery"


@pytest.fixture
def member(services):
    """``member(name, role)`` → their principal."""

    def make(name, role=Role.DEVELOPER, project="default"):
        user = services.accounts.create_user(name, PASSWORD, role, project)
        return Principal(user.id, name, project, role)

    return make


def test_a_key_is_known_by_its_shape():
    text = new_key_text()
    assert text.startswith("llmft_")
    assert is_key_text(text)
    assert new_key_text() != text
    other = "a" if text[20] != "a" else "b"
    for broken in (text[:20] + other + text[21:], text[:-1], text + "0", text.upper(), "", "llmft_" + "0" * 46):
        assert not is_key_text(broken)


def test_a_key_is_its_owner_in_its_project(services, member):
    alice = member("alice")
    key, text = services.api_keys.create(alice, "laptop")
    assert services.identity.authenticate(text) == replace(alice, key_id=key.id)
    assert text not in repr(key)
    assert key.hash == digest_of(text)
    assert key.hint == text[:10] + "…"


def test_a_mistyped_key_costs_no_look_into_the_database(services, twins, monkeypatch):
    monkeypatch.setattr(services.identity._keys, "by_hash", lambda _: pytest.fail("looked up"))
    for text in ("llmft_", "llmft_" + "a" * 46, "llmft_ø", "llmft_" + "a" * 5000):
        with pytest.raises(Unauthorized) as refused:
            services.identity.authenticate(text)
        assert refused.value.code == "key_invalid"


def test_a_key_nobody_made(services):
    with pytest.raises(Unauthorized):
        services.identity.authenticate(new_key_text())


def test_a_revoked_key_opens_nothing(services, member):
    alice = member("alice")
    key, text = services.api_keys.create(alice, "laptop")
    services.identity.authenticate(text)
    services.api_keys.revoke(alice, key.id)
    services.api_keys.revoke(alice, key.id)
    with pytest.raises(Unauthorized) as refused:
        services.identity.authenticate(text)
    assert refused.value.code == "key_invalid"
    (kept,) = services.api_keys.keys(alice)
    assert kept.revoked_at is not None


def test_an_expired_key_says_so(services, twins, member):
    key, text = services.api_keys.create(member("alice"), "laptop", days=1)
    assert key.expires_at - key.created_at == timedelta(days=1)
    twins.change(ApiKeyRow, key.id, expires_at=datetime.now(UTC))
    with pytest.raises(Unauthorized) as refused:
        services.identity.authenticate(text)
    assert refused.value.code == "key_expired"


def test_the_last_use_is_written_once_a_minute(services, twins, member):
    alice = member("alice")
    key, text = services.api_keys.create(alice, "laptop")
    assert services.api_keys.keys(alice)[0].last_used_at is None
    services.identity.authenticate(text)
    (used,) = services.api_keys.keys(alice)
    assert used.last_used_at >= key.created_at
    services.identity._callers.forget()
    services.identity.authenticate(text)
    assert services.api_keys.keys(alice) == [used]
    twins.keys.used(key.id, used.last_used_at - timedelta(minutes=2))
    services.identity._callers.forget()
    services.identity.authenticate(text)
    assert services.api_keys.keys(alice)[0].last_used_at > used.last_used_at


def test_a_use_that_cannot_be_written_is_no_refusal(services, twins, member, monkeypatch):
    _, text = services.api_keys.create(member("alice"), "laptop")

    def full(*_):
        raise Unavailable("the disk is full")

    monkeypatch.setattr(services.identity._keys, "used", full)
    assert services.identity.authenticate(text).username == "alice"


def test_who_leaves_takes_their_keys_along(services, member):
    admin, alice = member("root", Role.ADMIN), member("alice")
    _, text = services.api_keys.create(alice, "laptop")
    services.identity.authenticate(text)
    services.projects.remove(admin, "alice")
    with pytest.raises(Unauthorized):
        services.identity.authenticate(text)


def test_who_comes_back_finds_their_keys_revoked(services, member):
    admin, alice = member("root", Role.ADMIN), member("alice")
    services.projects.create_service_account(admin, "ci", Role.VIEWER)
    keys = [
        services.api_keys.create(alice, "x")[1],
        services.api_keys.create(admin, "x", username="ci@default")[1],
    ]
    for username in ("alice", "ci@default"):
        services.projects.remove(admin, username)
    services.projects.set_role(admin, "alice", Role.DEVELOPER)
    assert services.projects.create_service_account(admin, "ci", Role.DEVELOPER).role is Role.DEVELOPER
    for text in keys:
        with pytest.raises(Unauthorized):
            services.identity.authenticate(text)


def test_a_changed_role_is_the_keys_at_once(services, member):
    admin, alice = member("root", Role.ADMIN), member("alice")
    _, text = services.api_keys.create(alice, "laptop")
    services.identity.authenticate(text)
    services.projects.set_role(admin, "alice", Role.VIEWER)
    assert services.identity.authenticate(text).role is Role.VIEWER


def test_a_key_makes_no_keys(services, member):
    _, text = services.api_keys.create(member("root", Role.ADMIN), "laptop")
    with pytest.raises(Forbidden) as refused:
        services.api_keys.create(services.identity.authenticate(text), "another")
    assert refused.value.code == "needs_log_in"


def test_keys_of_a_service_account_are_made_by_an_admin(services, member):
    admin, alice = member("root", Role.ADMIN), member("alice")
    services.projects.create_service_account(admin, "ci", Role.VIEWER)
    _, text = services.api_keys.create(admin, "ci", username="ci@default", scopes=[Scope.INFER, Scope.INFER])
    found = services.identity.authenticate(text)
    assert (found.username, found.role, found.scopes) == ("ci@default", Role.VIEWER, {Scope.INFER})
    with pytest.raises(Forbidden):
        services.api_keys.create(alice, "ci", username="ci@default")
    with pytest.raises(Forbidden):  # an admin is nobody else
        services.api_keys.create(admin, "hers", username="alice")
    with pytest.raises(NotFound):
        services.api_keys.create(admin, "x", username="ci@other")


def test_a_service_account_has_no_password(services, member):
    services.projects.create_service_account(member("root", Role.ADMIN), "ci", Role.VIEWER)
    for password in ("", PASSWORD):
        with pytest.raises(Unauthorized):
            services.identity.login("ci@default", password)


def test_keys_are_seen_and_revoked_by_owner_and_admin_alone(services, member):
    admin, alice, bob = member("root", Role.ADMIN), member("alice"), member("bob")
    stranger = member("eve", Role.ADMIN, "other")
    key, text = services.api_keys.create(alice, "laptop")
    assert services.api_keys.keys(alice) == services.api_keys.keys(admin) == [key]
    assert services.api_keys.keys(bob) == services.api_keys.keys(stranger) == []
    for caller in (bob, stranger):
        with pytest.raises(NotFound):
            services.api_keys.revoke(caller, key.id)
    services.identity.authenticate(text)
    services.api_keys.revoke(admin, key.id)
    with pytest.raises(Unauthorized):
        services.identity.authenticate(text)


@pytest.mark.parametrize(("name", "days"), [("", 1), ("a" * 101, 1), ("a\nb", 1), ("x", 0), ("x", 3651)])
def test_a_key_with_faults_is_not_made(services, member, name, days):
    alice = member("alice")
    with pytest.raises(Invalid):
        services.api_keys.create(alice, name, days=days)
    assert services.api_keys.keys(alice) == []
