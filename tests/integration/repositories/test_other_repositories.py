"""What every ModelVersionRepository and UserRepository does."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError

from app.core.entities.identity import Membership, Role, User
from app.core.entities.models import ModelAlias, ModelSummary
from app.core.errors import Conflict, NotFound
from app.core.interfaces.job_kinds import Finished
from app.repositories.tables import ModelVersionRow

NOW = datetime(2026, 3, 3, tzinfo=UTC)


@pytest.fixture
def publish(repositories, make_job, make_version):
    def publish_one(name="assistant", project="default", **changes):
        job = make_job(project_id=project)
        repositories.jobs.add([job])
        version = make_version(job, name=name, **changes)
        repositories.jobs.succeed(job.id, repositories.claim(job.id), Finished({}, [version]))
        return repositories.versions.get(project, version.id)

    return publish_one


def test_finds_versions_by_id_number_and_newest(repositories, publish):
    first, second, foreign = publish(), publish(), publish(project="other")
    versions = repositories.versions
    assert versions.get("default", first.id) == first
    assert versions.get("default", "nowhere") is None
    assert versions.find("default", "assistant") == second
    assert versions.find("default", "assistant", 1) == first
    assert versions.find("default", "assistant", 3) is None
    assert versions.find("default", "nowhere") is None
    assert versions.versions("default", "assistant") == [second, first]
    assert versions.versions("default", "nowhere") == []
    assert versions.versions("other", "assistant") == [foreign]


def test_summarises_models_by_name_with_the_newest_version(repositories, publish):
    publish(metrics={"eval_loss": 0.9})
    newest = publish(metrics={"eval_loss": 0.1}, base_model="bigger")
    upper = publish("Zeta")
    assert repositories.versions.models("default") == [
        ModelSummary("Zeta", "tiny", 1, 1, upper.created_at, upper.metrics),
        ModelSummary("assistant", "bigger", 2, 2, newest.created_at, {"eval_loss": 0.1}),
    ]


def test_versions_stay_in_their_project(repositories, publish):
    version = publish()
    versions = repositories.versions
    assert versions.get("other", version.id) is None
    assert versions.find("other", "assistant") is None
    assert versions.models("other") == []
    assert versions.versions("other", "assistant") == []


def test_a_version_is_pinned_and_no_more(repositories, publish):
    first, second, foreign = publish(), publish(), publish(project="other")
    versions = repositories.versions
    versions.pin("default", first.id, True)
    versions.pin("default", foreign.id, True)
    versions.pin("default", "nowhere", True)
    assert versions.versions("default", "assistant") == [second, replace(first, pinned=True)]
    assert versions.get("other", foreign.id).pinned is False
    versions.pin("default", first.id, False)
    assert versions.get("default", first.id) == first


def alias_of(weights, **changes):
    values = {"project_id": "default", "model": "assistant", "alias": "champion", "set_by": "u1", "set_at": NOW}
    return ModelAlias(**{**values, **changes}, weights=weights)


def test_an_alias_carries_versions_until_it_is_set_anew(repositories, publish):
    versions = repositories.versions
    publish(), publish(), publish()
    first, canary = alias_of({1: 1}), alias_of({2: 90, 3: 10}, alias="canary", set_by=None)
    versions.set_alias(first)
    versions.set_alias(canary)
    assert versions.alias("default", "assistant", "champion") == first
    assert versions.aliases("default", "assistant") == [canary, first]
    second = alias_of({1: 5, 2: 5}, set_by="u2")
    versions.set_alias(second)
    assert versions.aliases("default", "assistant") == [canary, second]
    assert versions.remove_alias("default", "assistant", "canary") is True
    assert versions.remove_alias("default", "assistant", "canary") is False
    assert versions.alias("default", "assistant", "canary") is None
    assert versions.aliases("default", "assistant") == [second]


def test_an_alias_of_a_version_that_is_not_there_changes_nothing(repositories, publish):
    versions = repositories.versions
    publish(), publish(project="other"), publish(project="other")
    before = alias_of({1: 1})
    versions.set_alias(before)
    with pytest.raises(NotFound) as refused:
        versions.set_alias(alias_of({1: 1, 2: 1, 9: 1}))
    assert [fault.where for fault in refused.value.faults] == ["assistant:2", "assistant:9"]
    assert versions.aliases("default", "assistant") == [before]
    with pytest.raises(NotFound):
        versions.set_alias(alias_of({1: 1}, model="nobody"))


def test_aliases_stay_in_their_project(repositories, publish):
    versions = repositories.versions
    publish(), publish(project="other")
    versions.set_alias(alias_of({1: 1}))
    assert versions.alias("other", "assistant", "champion") is None
    assert versions.aliases("other", "assistant") == []
    assert versions.remove_alias("other", "assistant", "champion") is False
    assert versions.aliases("default", "assistant") == [alias_of({1: 1})]


def test_a_deleted_version_is_gone_and_its_number_stays_taken(repositories, publish):
    first, second = publish(), publish()
    versions = repositories.versions
    versions.set_alias(alias_of({2: 1}))
    with pytest.raises(Conflict, match="champion"):
        versions.delete("default", second.id)
    versions.remove_alias("default", "assistant", "champion")
    assert versions.delete("other", second.id) is False
    assert versions.delete("default", second.id) is True
    assert versions.delete("default", second.id) is False
    assert versions.get("default", second.id) is None
    assert versions.find("default", "assistant", 2) is None
    assert versions.find("default", "assistant") == first
    assert versions.versions("default", "assistant") == [first]
    assert [(one.versions, one.latest) for one in versions.models("default")] == [(1, 1)]
    with pytest.raises(NotFound):
        versions.set_alias(alias_of({2: 1}))
    assert publish().number == 3


def test_what_an_alias_names_is_not_deleted(repositories, make_job, make_version):
    job = make_job()
    repositories.jobs.add([job])
    published = make_version(job)
    repositories.jobs.succeed(job.id, repositories.claim(job.id), Finished({}, [published]))
    repositories.versions.set_alias(alias_of({1: 1}))
    with pytest.raises(IntegrityError), repositories.versions._database.write() as session:
        session.execute(delete(ModelVersionRow).where(ModelVersionRow.id == published.id))
    assert repositories.versions.find("default", "assistant", 1) == replace(published, number=1)


def test_users_and_their_first_membership(repositories):
    users = repositories.users
    assert users.any() is False
    assert users.list() == []
    zoe, amy = User("u1", "zoe", "hash", NOW), User("u2", "amy", "hash", NOW)
    users.add(zoe, "default", Role.VIEWER)
    users.add(amy, "other", Role.ADMIN)
    assert users.any() is True
    assert users.list() == [amy, zoe]
    assert users.by_username("zoe") == zoe
    assert users.by_username("zoe\x00") is None
    assert users.by_username("nobody") is None
    assert users.memberships("u1") == [Membership("u1", "default", Role.VIEWER)]
    assert users.memberships("u2") == [Membership("u2", "other", Role.ADMIN)]
    assert users.memberships("u3") == []


def test_a_refused_user_leaves_nothing(repositories):
    users = repositories.users
    zoe = User("u1", "zoe", "hash", NOW)
    users.add(zoe, "default", Role.VIEWER)
    with pytest.raises(Conflict, match="zoe is taken"):
        users.add(replace(zoe, id="u2", password_hash="other"), "other", Role.ADMIN)
    with pytest.raises(NotFound, match="nowhere"):
        users.add(User("u3", "amy", "hash", NOW), "nowhere", Role.ADMIN)
    assert users.list() == [zoe]
    assert users.memberships("u2") == []
