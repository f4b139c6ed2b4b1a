"""/v1/models, and the names that its models go by."""

import openai as wire
import pytest

from app.core.entities.identity import Role

BASE = "smollm2-135m-instruct"
CREATED = 1795737600
MESSAGES = [{"role": "user", "content": "abc"}]


def test_resident_bases_and_the_projects_versions_are_listed(openai, publish):
    publish(), publish(), publish("theirs", "other")
    listed = [model.to_dict() for model in openai.models.list()]
    assert listed == [
        {"id": BASE, "object": "model", "created": 0, "owned_by": "system"},
        *(
            {"id": f"ft:{BASE}:default:support:{n}", "object": "model", "created": CREATED, "owned_by": "default"}
            for n in (2, 1)
        ),
    ]
    assert [openai.models.retrieve(one["id"]).to_dict() for one in listed] == listed


@pytest.mark.parametrize("name", ["support", "support:1", f"ft:{BASE}:default:support:1", "gpt-4o-mini"])
def test_each_name_of_a_version_is_the_version(openai, publish, twins, name):
    publish()
    assert openai.models.retrieve(name).id == f"ft:{BASE}:default:support:1"
    openai.chat.completions.create(model=name, messages=MESSAGES)
    asked = twins.inference.asked[-1][1].model
    assert asked == ("support" if name in ("support", "gpt-4o-mini") else "support:1")


def test_an_old_name_may_have_a_slash(openai):
    assert openai.models.retrieve("acme/old").id == BASE


@pytest.mark.parametrize(
    "name",
    [
        "nobody",
        "support:2",
        "no/such name",
        f"ft:{BASE}:other:theirs:1",
        f"ft:{BASE}:default:theirs:1",
        "ft:another-base:default:support:1",
        f"ft:{BASE}:default:support:0",
    ],
)
def test_no_other_name_is_a_model(openai, publish, name):
    publish(), publish("theirs", "other")
    with pytest.raises(wire.NotFoundError) as caught:
        openai.models.retrieve(name)
    assert (caught.value.code, caught.value.type) == ("model_not_found", "invalid_request_error")
    assert repr(name) in caught.value.message


def test_a_strangers_tuned_name_is_no_model_to_chat_with(connect, publish, twins):
    publish()
    stranger = connect(Role.ADMIN, "other")
    with pytest.raises(wire.NotFoundError):
        stranger.chat.completions.create(model=f"ft:{BASE}:default:support:1", messages=MESSAGES)
    assert not twins.inference.asked


def test_a_version_is_deleted_by_its_own_name(connect, publish, twins):
    publish(), publish(), publish("theirs", "other")
    admin = connect(Role.ADMIN)
    name = f"ft:{BASE}:default:support:1"
    assert admin.models.delete(name).to_dict() == {"id": name, "object": "model", "deleted": True}
    with pytest.raises(wire.NotFoundError):
        admin.models.retrieve(name)
    for unknown in (name, f"ft:{BASE}:other:theirs:1", "theirs:1", "nobody"):
        with pytest.raises(wire.NotFoundError):
            admin.models.delete(unknown)
    with pytest.raises(wire.PermissionDeniedError) as caught:
        admin.models.delete(BASE)
    assert caught.value.code == "base_model_stays"
    for moving in ("support", "gpt-4o-mini"):
        with pytest.raises(wire.BadRequestError):
            admin.models.delete(moving)
    with pytest.raises(wire.PermissionDeniedError):
        connect(Role.DEVELOPER).models.delete("support:2")
    assert [(one.name, one.number) for one in twins.versions.kept] == [("support", 2), ("theirs", 1)]
