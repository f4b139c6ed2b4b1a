"""Settings and where they come from; what the packaging files promise."""

import os
import re
import runpy
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from app.bootstrap import load_training_config
from config import config
from config.config import Settings, SettingsError, read_settings

ROOT = Path(__file__).parents[2]
SECRET = "hunter2-is-not-shown"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty configuration folder, with the .env in it."""
    monkeypatch.setattr(config, "CONFIG_DIR", tmp_path)
    monkeypatch.setenv("DOTENV_PATH", str(tmp_path / ".env"))
    return tmp_path


# --- .env.example and the YAML files ---


def example_names() -> list[str]:
    return re.findall(r"^#?([A-Z][A-Z0-9_]*)=", (ROOT / ".env.example").read_text(), re.MULTILINE)


def test_env_example_names_every_setting_once_and_nothing_else() -> None:
    assert sorted(example_names()) == sorted(name.upper() for name in Settings.model_fields)


def test_env_example_explains_every_setting() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    for before, line in pairwise(lines):
        if re.match(r"#[A-Z][A-Z0-9_]*=", line):
            assert re.match(r"# \w.{8,}", before), f"{line} has no comment above it"


def test_env_example_shows_the_values_that_hold_without_it(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking every # off changes nothing in development."""
    monkeypatch.setattr(config, "CONFIG_DIR", ROOT / "config")
    plain = read_settings()
    text = (ROOT / ".env.example").read_text()
    (files / ".env").write_text(re.sub(r"^#([A-Z][A-Z0-9_]*=)", r"\1", text, flags=re.MULTILINE))
    shown, expected = read_settings().model_dump(), plain.model_dump()
    for name, value in expected.items():
        if isinstance(value, Path):
            value, shown[name] = value.relative_to(ROOT), Path(os.path.relpath(ROOT / shown[name], ROOT))
        assert shown[name] == value, name


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "config").glob("*.yaml")))
def test_a_yaml_file_says_what_it_is(file: str) -> None:
    assert (ROOT / "config" / file).read_text().startswith("# ")


@pytest.mark.parametrize(
    "file",
    [
        *("default.yaml", "development.yaml", "production.yaml", "train_config.yaml"),
        *("tiny_llm.yaml", "tiny_llm_small.yaml", "tiny_pretrain.yaml", "tiny_sft.yaml"),
    ],
)
def test_every_key_in_yaml_has_a_comment(file: str) -> None:
    for line in (ROOT / "config" / file).read_text().splitlines():
        assert not line.strip() or re.search(r"# \S+", line), f"{file}: {line}"


@pytest.mark.parametrize("stage", ["development", "production"])
def test_the_shipped_configuration_is_valid(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_ENV", stage)
    known = yaml.safe_load((ROOT / "config/base_models.yaml").read_text())
    settings = read_settings()
    assert settings.app_env == stage
    assert settings.engine_base_model in known
    assert settings.default_base_model in known


def test_the_tiny_llm_s_trainings_follow_each_other() -> None:
    first, second = (load_training_config(ROOT / f"config/tiny_{name}.yaml") for name in ("pretrain", "sft"))
    assert (first.objective, second.objective) == ("pretrain", "sft")
    assert second.from_version == first.published_name
    assert first.base_model == second.base_model == "tiny-llm"


# --- the order of sources ---


def test_the_environment_beats_dotenv_beats_the_stages_yaml_beats_the_default_yaml(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_settings().port == Settings.model_fields["port"].default
    (files / "default.yaml").write_text("port: 1\nweb_threads: 2")
    assert read_settings().port == 1
    (files / "development.yaml").write_text("port: 2")
    (files / "production.yaml").write_text("port: 99")
    assert (read_settings().port, read_settings().web_threads) == (2, 2)
    (files / ".env").write_text("PORT=3\n")
    assert read_settings().port == 3
    monkeypatch.setenv("PORT", "4")
    assert read_settings().port == 4
    assert read_settings(port=5).port == 5


@pytest.mark.parametrize("where", ["environment", "dotenv"])
def test_the_stage_is_chosen_by_the_environment_or_dotenv(
    files: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    (files / "production.yaml").write_text("port: 99")
    if where == "environment":
        monkeypatch.setenv("APP_ENV", "production")
    else:
        (files / ".env").write_text("APP_ENV=production\n")
    assert (read_settings().app_env, read_settings().port) == ("production", 99)


def test_an_empty_variable_is_no_variable(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / ".env").write_text("SECRET_KEY=\n")
    monkeypatch.setenv("PORT", "")
    assert (read_settings().port, read_settings().secret_key) == (5000, None)


def test_relative_folders_start_at_the_repository(files: Path) -> None:
    assert read_settings(results_dir="elsewhere").results_dir == ROOT / "elsewhere"


# --- what stops a start: the key is named, the value is not shown ---


@pytest.mark.parametrize(
    ("file", "text", "key"),
    [
        ("default.yaml", f"porrt: {SECRET}", "porrt"),
        ("development.yaml", f"engine_uri: {SECRET}", "engine_uri"),
        (".env", f"ADMIN_PASWORD={SECRET}", "admin_pasword"),
        ("default.yaml", f"port: {SECRET}", "port"),
        ("default.yaml", f"engines: {SECRET}", "engines"),
        ("default.yaml", f"engines: {{model: [{SECRET}]}}", "engines.model"),
        ("default.yaml", "port: 70000", "port"),
        (".env", f"WORKER_SLOTS={SECRET}", "worker_slots"),
        (".env", f"ENGINES={{{SECRET}", "engines"),
        (".env", f"LOG_LEVEL={SECRET}", "log_level"),
        (".env", "SECRET_KEY=hunter2-is-too-short", "secret_key"),
        ("default.yaml", f"- {SECRET}", "default.yaml"),
        ("development.yaml", f"port: [{SECRET}", "development.yaml"),
    ],
)
def test_a_faulty_file_stops_the_start(files: Path, file: str, text: str, key: str) -> None:
    (files / file).write_text(text)
    with pytest.raises(SettingsError, match=re.escape(key)) as stopped:
        read_settings()
    assert "hunter2" not in str(stopped.value)


@pytest.mark.parametrize("name", ["PORT", "WEB_WORKERS", "ENGINES", "APP_ENV", "LEASE_SECONDS", "TRAINER"])
def test_a_faulty_variable_stops_the_start(files: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, SECRET)
    with pytest.raises(SettingsError, match=name.lower()) as stopped:
        read_settings()
    assert SECRET not in str(stopped.value)


def test_all_faulty_keys_are_named_at_once(files: Path) -> None:
    (files / "default.yaml").write_text("porrt: 1\nweb_threads: many\ntoken_seconds: 1")
    with pytest.raises(SettingsError) as stopped:
        read_settings()
    for key in ("porrt", "web_threads", "token_seconds"):
        assert key in str(stopped.value)


# --- pins ---


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned_in_its_range() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    assert pins["torch"].count("+") == 0  # both the CPU build and the CUDA builds match
    wanted = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[normal(requirement.name)]), requirement.name


def test_make_alone_lists_the_commands() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for command in ("install", "demo", "test", "test-slow", "lint", "format", "serve", "clean"):
        assert re.search(rf"^make {command} +\w", listed, re.MULTILINE), command


def test_an_old_python_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer"):
        runpy.run_path(str(ROOT / "tools/install.py"), run_name="__main__")


def test_a_dotenv_that_is_no_text_is_named(files: Path) -> None:
    (files / ".env").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"\.env: not UTF-8"):
        read_settings()
