"""Training on from a published version: whose it is, what is taken over from it, and what contradicts it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from app.bootstrap import Overrides, build_services
from app.core.entities.identity import DEFAULT_PROJECT_ID, Principal, Role
from app.core.entities.models import CHAMPION, ModelAlias, ModelVersion
from app.core.entities.training_config import TrainingConfig
from app.core.errors import Invalid
from tests.unit.conftest import TwinQueue

OTHER = "other"
CLIENT = Principal("user-1", "alice", OTHER, Role.OPERATOR)
SOUND = {"dataset_path": "data/raw/sound.json"}
SHAPE = {"r": 4, "lora_alpha": 8.0, "target_modules": ["q_proj", "v_proj"], "use_rslora": True}


@pytest.fixture
def training(services):
    return services.training


@pytest.fixture
def publish(twins):
    def make(project: str = OTHER, name: str = "shops", **config: Any) -> ModelVersion:
        settings = {"base_model": "tiny-random", "model_name": name, **SHAPE, **config}
        return twins.versions.publish(
            ModelVersion(
                id=f"version-{len(twins.versions.kept)}",
                project_id=project,
                name=name,
                number=0,
                base_model=settings["base_model"],
                template_hash="hash",
                artifacts="folder",
                job_id=None,
                dataset_digest="digest",
                config=TrainingConfig(**settings).model_dump(mode="json"),
                metrics={},
                created_by=None,
                created_at=datetime.now(UTC),
            )
        )

    return make


def set_alias(twins, alias: str, weights: dict[int, int]) -> None:
    twins.versions.set_alias(ModelAlias(OTHER, "shops", alias, weights, None, datetime.now(UTC)))


def refused(training, **overrides: Any) -> dict[str, str]:
    with pytest.raises(Invalid) as error:
        training.submit(CLIENT, {**SOUND, "from_version": "shops", **overrides})
    return {fault.where: fault.code for fault in error.value.faults}


def test_base_model_adaptation_and_shape_are_the_versions(training, publish):
    training._requests.defaults = training.defaults.with_changes(base_model="smollm2-135m-instruct")
    publish(adaptation="qlora", lora_dropout=0.5)
    config = training.submit(CLIENT, {**SOUND, "from_version": "shops"}).config
    assert (config["base_model"], config["adaptation"]) == ("tiny-random", "qlora")
    assert {key: config["lora"][key] for key in SHAPE} == SHAPE
    assert config["lora"]["lora_dropout"] == 0.0  # of how it is trained, not of what it is


def test_a_bare_name_never_moves(training, publish):
    publish()
    publish()
    job = training.submit(CLIENT, {**SOUND, "from_version": "shops"})
    publish()
    assert job.config["from_version"] == "shops:2"
    older = training.submit(CLIENT, {**SOUND, "model": {"from_version": "shops:1"}})
    assert older.config["from_version"] == "shops:1"


def test_another_projects_version_is_not_found(training, publish, twins):
    publish(project=DEFAULT_PROJECT_ID)
    assert refused(training) == {"config.from_version": "model_not_found"}
    assert twins.queue.rung == []
    assert (
        training.submit(Principal.host(), {**SOUND, "from_version": "shops"}, foreground=True).config[
            "from_version"
        ]
        == "shops:1"
    )


def test_an_alias_is_the_version_that_it_names_now(training, publish, twins):
    publish(), publish(), publish()
    set_alias(twins, "best", {1: 1})
    set_alias(twins, CHAMPION, {2: 1})
    for reference, pinned in (("shops@best", "shops:1"), ("shops", "shops:2")):
        job = training.submit(CLIENT, {**SOUND, "from_version": reference})
        assert job.config["from_version"] == pinned
    set_alias(twins, CHAMPION, {2: 90, 3: 10})  # of two versions none is meant
    assert refused(training) == {"config.from_version": "split_alias"}


@pytest.mark.parametrize("reference", ["shops:2", "nobody", "shops@best"])
def test_a_version_that_is_not_there(training, publish, reference):
    publish()
    assert refused(training, from_version=reference) == {"config.from_version": "model_not_found"}


@pytest.mark.parametrize("reference", ["../shops", "shops:0", "shops@-best", "", 3])
def test_what_is_no_reference_is_the_configs_fault(training, publish, reference):
    publish()
    assert list(refused(training, from_version=reference)) == ["config.from_version"]


def test_what_contradicts_the_version_is_named_all_at_once(training, publish):
    publish()
    own = {"base_model": "deepseek-r1-1.5b", "adaptation": "full", "lora": {"r": 8, "use_rslora": False}}
    places = ("base_model", "config.adaptation", "config.lora.r", "config.lora.use_rslora")
    assert refused(training, **own) == dict.fromkeys(places, "contradicts_version")


def test_what_is_given_and_fits_is_no_contradiction(training, publish):
    publish()
    own = {**SHAPE, "base_model": "tiny-random", "adaptation": "qlora", "target_modules": ["v_proj", "q_proj"]}
    config = training.submit(CLIENT, {**SOUND, "from_version": "shops", **own, "learning_rate": 1e-5}).config
    assert (config["adaptation"], config["learning_rate"]) == ("qlora", 1e-5)


def test_a_whole_model_goes_on_as_a_whole_model(training, publish):
    publish(adaptation="full", use_rslora=False)
    assert training.submit(CLIENT, {**SOUND, "from_version": "shops"}).config["adaptation"] == "full"
    assert refused(training, adaptation="lora") == {"config.adaptation": "contradicts_version"}


def test_a_version_with_a_label_head_is_no_beginning(training, publish):
    publish(objective="classification", use_rslora=False)
    assert refused(training) == {"config.from_version": "not_generative"}


def test_it_is_refused_beside_the_other_faults_of_a_request(caller, publish):
    body = {"dataset_path": "data/raw/none.json", "config": {"from_version": "shops", "num_epochs": 0}}
    answer = caller("POST", "/api/v1/train", json=body)
    assert answer.status_code == 422
    text = answer.get_data(as_text=True)
    assert all(named in text for named in ("model_not_found", "num_epochs", "dataset_path"))


def test_what_a_file_leaves_open_is_the_versions_and_what_it_says_must_fit(training, publish):
    publish(project=DEFAULT_PROJECT_ID)
    open_file = TrainingConfig(**SOUND, from_version="shops", lora_dropout=0.1, num_epochs=1)
    job = training.submit(Principal.host(), open_file.as_request(), foreground=True)
    assert {key: job.config["lora"][key] for key in SHAPE} == SHAPE
    assert (job.config["base_model"], job.config["lora"]["lora_dropout"]) == ("tiny-random", 0.1)
    with pytest.raises(Invalid) as error:
        training.submit(
            Principal.host(), TrainingConfig(**SOUND, from_version="shops", r=16).as_request(), foreground=True
        )
    assert [fault.where for fault in error.value.faults] == ["config.lora.r"]


def test_the_services_own_defaults_start_from_nothing(quiet_settings, database, publish, tmp_path):
    publish()
    defaults = tmp_path / "train_config.yaml"
    defaults.write_text("from_version: shops\nnum_epochs: 7\n")
    settings = quiet_settings.model_copy(update={"train_config_file": defaults})
    services = build_services(settings, database, overrides=Overrides(queue=TwinQueue()))
    config = services.training.submit(CLIENT, SOUND).config
    assert (config["from_version"], config["num_epochs"]) == (None, 7)
