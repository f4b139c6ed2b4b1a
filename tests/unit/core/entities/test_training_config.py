"""The training config: flat or under model:, and every fault has a name."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.bootstrap import load_training_config
from app.core.entities.training_config import LoraSettings, TrainingConfig, training_config
from app.core.errors import Fault, Invalid

SHIPPED = Path(__file__).parents[4] / "config/train_config.yaml"
VALUES: dict[str, Any] = {"learning_rate": 5e-5, "batch_size": 3, "num_epochs": 2, "r": 4, "lora_dropout": 0.1}


def places(error: ValidationError) -> set[str]:
    return {".".join(map(str, fault["loc"])) for fault in error.errors()}


@given(st.sets(st.sampled_from(sorted(VALUES))), st.sets(st.sampled_from(sorted(VALUES))))
def test_a_key_means_the_same_at_the_top_under_model_and_in_the_lora_block(
    nested: set[str], in_block: set[str]
) -> None:
    raw: dict[str, Any] = {"model": {}, "lora": {}}
    for key, value in VALUES.items():
        if key in LoraSettings.model_fields and key in in_block:
            raw["lora"][key] = value
        elif key in nested:
            raw["model"][key] = value
        else:
            raw[key] = value
    assert TrainingConfig.model_validate(raw) == TrainingConfig.model_validate(VALUES)


def test_the_lora_block_may_stand_under_model_and_be_filled_from_outside() -> None:
    config = TrainingConfig.model_validate({"model": {"lora": {"r": 4}, "lora_alpha": 8}})
    assert (config.lora.r, config.lora.lora_alpha) == (4, 8)


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ({"batch_size": 1, "model": {"batch_size": 1}}, "batch_size"),
        ({"r": 4, "lora": {"r": 4}}, "r"),
        ({"model": {"r": 4}, "lora": {"r": 8}}, "r"),
        ({"lora": {"r": 4}, "model": {"lora": {"r": 8}}}, "lora"),
        ({"r": 4, "model": {"r": 4}}, "r"),
    ],
)
def test_a_key_given_twice_is_an_error(raw: dict[str, Any], key: str) -> None:
    with pytest.raises(ValidationError, match=rf"given twice.*: {key}"):
        TrainingConfig.model_validate(raw)


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        ({"learning_rat": 1e-4}, "learning_rat"),
        ({"model": {"learning_rat": 1e-4}}, "learning_rat"),
        ({"lora": {"rank": 4}}, "lora.rank"),
        ({"Learning_Rate": 1e-4}, "Learning_Rate"),
        ({"model": {"model": {"seed": 1}}}, "model"),
    ],
)
def test_an_unknown_key_is_named(raw: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TrainingConfig.model_validate(raw)
    assert places(refused.value) == {place}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", -1e-4),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("learning_rate", "fast"),
        ("batch_size", 0),
        ("batch_size", 1.5),
        ("num_epochs", None),
        ("max_length", 8),
        ("seed", 2**32),
        ("base_model", "../secret"),
        ("model_name", "a/b"),
        ("experiment_name", ""),
        ("experiment_name", "x" * 65),
        ("dataset_path", ""),
        ("objective", "ppo"),
        ("dpo_beta", 0),
        ("device", "tpu"),
        ("train_samples", 0),
        ("optimizer", "sgd"),
        ("warmup_ratio", 1.5),
        ("gradient_checkpointing", "perhaps"),
        ("max_grad_norm", float("inf")),
        ("sample_prompts", "one text"),
        ("sample_prompts", ["a"] * 9),
        ("sample_max_tokens", 0),
        ("lora.r", 0),
        ("lora.lora_dropout", 1),
        ("lora.lora_alpha", "x"),
        ("lora.loraplus_lr_ratio", 0.5),
        ("from_version", "name:0"),
        ("from_version", "a/b"),
        ("adaptation", "prefix"),
    ],
)
def test_an_ill_typed_or_impossible_value_is_named(key: str, value: object) -> None:
    block, _, inner = key.partition(".")
    with pytest.raises(ValidationError) as refused:
        TrainingConfig.model_validate({block: {inner: value}} if inner else {key: value})
    assert places(refused.value) == {key}


@pytest.mark.parametrize(
    "raw", [[], "text", {"model": [1]}, {"model": "x"}, {"lora": None, "r": 4}, {"lora": [], "r": 4}]
)
def test_what_is_not_a_mapping_is_refused(raw: object) -> None:
    with pytest.raises(ValidationError):
        TrainingConfig.model_validate(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from([*TrainingConfig.model_fields, *LoraSettings.model_fields, "model", "nonsense"])


@given(st.dictionaries(keys, json_values, max_size=6))
def test_whatever_comes_is_a_config_or_a_list_of_faults(raw: dict[str, Any]) -> None:
    faults: tuple[Fault, ...] = ()
    try:
        config = training_config(raw)
    except Invalid as refused:
        faults = refused.faults
    else:
        assert TrainingConfig.model_validate(config.model_dump(mode="json")) == config
        return
    assert faults
    assert all(fault.where.startswith("config") for fault in faults)


@given(st.builds(TrainingConfig, learning_rate=st.floats(1e-6, 1), batch_size=st.integers(1, 64)))
def test_it_survives_yaml(config: TrainingConfig) -> None:
    assert TrainingConfig.model_validate(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config


def test_with_changes_validates_and_leaves_the_original() -> None:
    config = TrainingConfig()
    assert config.with_changes(num_epochs=1).num_epochs == 1
    assert config.num_epochs == TrainingConfig.model_fields["num_epochs"].default
    with pytest.raises(ValidationError):
        config.with_changes(num_epochs=0)


@pytest.mark.parametrize("raw", [{"warmup_ratio": 0.1}, {"model": {"warmup_ratio": 0.1}}])
def test_a_warm_up_by_ratio_takes_the_place_of_the_default_steps(raw: dict[str, Any]) -> None:
    for config in (
        TrainingConfig.model_validate(raw),
        training_config(raw, over=TrainingConfig(warmup_steps=5)),
        TrainingConfig(warmup_steps=5).with_changes(warmup_ratio=0.1),
    ):
        assert (config.warmup_ratio, config.warmup_steps) == (0.1, 0)
        assert TrainingConfig.model_validate(config.model_dump()) == config
    back = training_config({"warmup_steps": 3}, over=TrainingConfig(warmup_ratio=0.1))
    assert (back.warmup_ratio, back.warmup_steps) == (None, 3)


@pytest.mark.parametrize(
    "raw", [{"warmup_ratio": 0.1, "warmup_steps": 5}, {"model": {"warmup_ratio": 0, "warmup_steps": 5}}]
)
def test_a_warm_up_given_both_ways_is_an_error_by_name(raw: dict[str, Any]) -> None:
    for over in (None, TrainingConfig()):
        with pytest.raises(Invalid) as refused:
            training_config(raw, over=over)
        (fault,) = refused.value.faults
        assert "warmup_steps and warmup_ratio: give one of the two" in fault.message


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"processes": 2}, "strategy single is one process, and processes is 2"),
        (
            {"strategy": "fsdp", "optimizer": "lamb"},
            "optimizer lamb wants whole tensors and strategy fsdp cuts them",
        ),
        ({"strategy": "deepspeed", "optimizer": "adamw_8bit"}, "strategy deepspeed cuts them"),
        ({"strategy": "horovod"}, "strategy"),
        ({"strategy": "deepspeed", "zero_stage": 1}, "zero_stage"),
        ({"strategy": "ddp", "processes": 0}, "processes"),
    ],
)
def test_a_strategy_that_makes_no_sense_is_refused_by_name(keys: dict[str, Any], named: str) -> None:
    with pytest.raises(Invalid) as refused:
        training_config(keys)
    (fault,) = refused.value.faults
    assert named in f"{fault.where}: {fault.message}"


@pytest.mark.parametrize("keys", [{"strategy": "fsdp"}, {"strategy": "deepspeed", "zero_stage": 3}])
def test_what_is_quantised_cannot_be_cut(keys: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refused:
        training_config({**keys, "adaptation": "qlora"})
    assert "cannot cut the quantised weights of adaptation qlora" in refused.value.faults[0].message


@pytest.mark.parametrize("keys", [{"strategy": "ddp"}, {"strategy": "deepspeed", "zero_stage": 2}])
def test_what_is_quantised_can_be_spread_whole(keys: dict[str, Any]) -> None:
    assert training_config({**keys, "adaptation": "qlora"}).adaptation == "qlora"


def test_a_version_is_published_under_model_name_else_the_experiments() -> None:
    assert TrainingConfig(experiment_name="e").published_name == "e"
    assert TrainingConfig(experiment_name="e", model_name="m").published_name == "m"


@pytest.mark.parametrize("wanted", ["auto", "none", ["mlflow"], ["tensorboard", "wandb"]])
def test_report_to_is_auto_none_or_names(wanted: object) -> None:
    config = training_config({"report_to": wanted}, strict=True)
    assert config.model_dump(mode="json")["report_to"] == wanted


@pytest.mark.parametrize("wanted", ["tensorboard", ["tensorbord"], ["auto"], 1, None])
def test_an_unknown_tracker_is_a_fault_of_report_to(wanted: object) -> None:
    with pytest.raises(Invalid) as refused:
        training_config({"report_to": wanted})
    assert all(fault.where.startswith("config.report_to") for fault in refused.value.faults)


# --- what the keys mean together ---


@pytest.mark.parametrize("option", ["use_rslora", "use_dora", "loraplus_lr_ratio"])
def test_loras_options_belong_to_adapters(option: str) -> None:
    value: Any = 4 if option == "loraplus_lr_ratio" else True
    for adaptation in ("lora", "qlora"):
        assert getattr(TrainingConfig(adaptation=adaptation, lora={option: value}).lora, option) == value
    with pytest.raises(Invalid) as refused:
        training_config({"adaptation": "full", option: value})
    [fault] = refused.value.faults
    assert (fault.where, fault.code) == ("config", "impossible_combination")
    assert f"lora.{option}: not with adaptation: full" in fault.message


def test_lora_by_hand_has_neither_dora_nor_a_label_head() -> None:
    assert TrainingConfig(
        adaptation="lora_linear", lora={"use_rslora": True, "loraplus_lr_ratio": 4}
    ).lora.use_rslora
    for changes, named in (({"use_dora": True}, "lora.use_dora"), ({"objective": "classification"}, "label head")):
        with pytest.raises(Invalid) as refused:
            training_config({"adaptation": "lora_linear", **changes})
        [fault] = refused.value.faults
        assert fault.code == "impossible_combination"
        assert named in fault.message


@pytest.mark.parametrize("reference", ["name", "name:3", "a.b-c_d:12"])
def test_a_version_to_start_from(reference: str) -> None:
    assert TrainingConfig(from_version=reference).from_version == reference


def test_as_request_leaves_open_what_only_a_version_decides() -> None:
    whole = TrainingConfig(r=4).as_request()
    assert whole == TrainingConfig(r=4).model_dump(mode="json")
    opened = TrainingConfig(r=4, from_version="shops").as_request()
    assert opened["lora"].keys() == {"r", "lora_dropout", "loraplus_lr_ratio"}
    assert whole.keys() - opened.keys() == {"base_model", "adaptation"}


# --- the file ---


def test_the_shipped_file_loads_and_trains_the_house_model() -> None:
    config = load_training_config(SHIPPED)
    assert (config.base_model, config.model_name) == ("deepseek-r1-1.5b", "support-assistant")


@pytest.mark.parametrize("text", ["learning_rate: 1.0e-4", "model:\n  learning_rate: 1.0e-4", "seed: 1"])
def test_a_change_beats_the_file_wherever_the_key_stands(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.yaml").write_text(text)
    assert load_training_config(tmp_path / "train.yaml", learning_rate=0.5).learning_rate == 0.5


@pytest.mark.parametrize("content", [b"- a\n", b"", b"a: [", b"\xff\xfe", None])
def test_a_file_that_is_no_mapping_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "train.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Invalid, match=r"train\.yaml"):
        load_training_config(file)


def test_every_fault_of_a_file_is_listed(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("batch_size: none\nlora: {rank: 8}\nepochs: 3\n")
    with pytest.raises(Invalid) as refused:
        load_training_config(tmp_path / "train.yaml")
    assert {fault.where for fault in refused.value.faults} == {
        "train.yaml.batch_size",
        "train.yaml.lora.rank",
        "train.yaml.epochs",
    }
