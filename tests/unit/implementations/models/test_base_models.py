"""The catalogue, where models lie, and what is said when one does not."""

import multiprocessing
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.bootstrap import load_settings
from app.core.entities.models import BaseModelSpec
from app.core.errors import Conflict, Invalid, Unavailable
from app.core.factories import ComponentFactory
from app.implementations.models.base_models import FolderBaseModelStore, read_catalogue
from app.implementations.models.random_model import write_random_tokenizer
from app.registries import BASE_MODEL_SOURCES

ROOT = Path(__file__).parents[4]
SOURCES = ["folder", "hub", "package", "random", "scratch"]


def write_model(_: BaseModelSpec, target: Path) -> None:
    """Whole as far as can be seen without loading it, in a moment."""
    (target / "config.json").write_text("{}")
    header = b'{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'
    (target / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    write_random_tokenizer("llama", target)


def write_half(_: BaseModelSpec, target: Path) -> None:
    (target / "config.json").write_text("{}")


class OneSource(ComponentFactory[Any]):
    def __init__(self, function: Callable[[BaseModelSpec, Path], None]) -> None:
        super().__init__("source", {"random": ""})
        self._function = function

    def load(self, name: str) -> Callable[..., Any]:
        return self._function


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    (tmp_path / "tiny").mkdir()
    write_model(BaseModelSpec("tiny", "random", ""), tmp_path / "tiny")
    return tmp_path / "tiny"


Store = Callable[..., FolderBaseModelStore]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    def make(entries: dict[str, Any], sources: ComponentFactory[Any] = BASE_MODEL_SOURCES) -> FolderBaseModelStore:
        (tmp_path / "config").mkdir(exist_ok=True)
        catalogue = tmp_path / "config" / "base_models.yaml"
        catalogue.write_text(yaml.safe_dump(entries))
        return FolderBaseModelStore(catalogue, tmp_path / "models" / "base", sources)

    return make


def entry(source: str, location: str, **more: str) -> dict[str, str]:
    return {"source": source, "location": location, **more}


class TestCatalogue:
    def test_the_project_s_own(self) -> None:
        specs = read_catalogue(load_settings().base_models_file, SOURCES)
        assert specs["deepseek-r1-1.5b"].location == "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
        assert specs["smollm2-135m-instruct"].source == "package"
        assert specs["tiny-random"].source == "random"

    def test_every_fault_by_its_key(self, store: Store) -> None:
        with pytest.raises(Invalid) as caught:
            store({"a": {"source": "hub", "revision": "x"}, "b/c": entry("hub", "x"), "d": entry("hub", "")})
        assert sorted(fault.where for fault in caught.value.faults) == [
            "base_models.yaml.a.location",
            "base_models.yaml.a.revision",
            "base_models.yaml.b/c.[key]",
            "base_models.yaml.d.location",
        ]
        assert "base_models.yaml.a.revision" in caught.value.message

    def test_an_unknown_source_lists_the_known_ones(self, store: Store) -> None:
        with pytest.raises(
            Invalid, match=r"base_models\.yaml\.a\.source: .*folder, hub, package, random, scratch"
        ):
            store({"a": entry("ftp", "x")})

    @pytest.mark.parametrize("text", ["a: [", "- a", "", "\xff"])
    def test_no_mapping_at_all(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "c.yaml").write_text(text, "latin-1")
        with pytest.raises(Invalid, match=r"c\.yaml"):
            read_catalogue(tmp_path / "c.yaml", SOURCES)

    def test_an_unknown_name_lists_the_known_ones(self, store: Store) -> None:
        with pytest.raises(Invalid, match="known: a, b") as caught:
            store({"b": entry("hub", "x"), "a": entry("hub", "y")}).folder("c")
        assert caught.value.code == "unknown_base_model"


class TestFolder:
    @pytest.mark.parametrize("source", ["hub", "package", "folder", "random", "scratch"])
    def test_missing_names_three_ways_out_at_once(self, store: Store, tmp_path: Path, source: str) -> None:
        bases = store({"a": entry(source, "some/where")})
        started = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            bases.folder("a")
        assert time.monotonic() - started < 5
        assert not bases.present("a")
        error = caught.value
        assert error.code == "base_model_missing"
        for way in ("`flask models pull a`", "to models/base/a", "config/base_models.yaml"):
            assert way in error.message
        assert str(tmp_path) not in error.message

    def test_a_folder_copied_by_hand_counts(self, store: Store, tmp_path: Path, tiny: Path) -> None:
        bases = store({"a": entry("hub", "x")})
        shutil.copytree(tiny, tmp_path / "models" / "base" / "a")
        assert bases.present("a")
        assert bases.folder("a") == tmp_path / "models" / "base" / "a"

    @pytest.mark.parametrize("relative", [True, False])
    def test_a_local_folder_is_its_own_place(
        self, store: Store, tmp_path: Path, tiny: Path, relative: bool
    ) -> None:
        shutil.copytree(tiny, tmp_path / "mine")
        bases = store({"a": entry("folder", "mine" if relative else str(tmp_path / "mine"))})
        assert bases.folder("a") == tmp_path / "mine"
        assert bases.tokenizer("a") is bases.tokenizer("a")


class TestPull:
    def test_a_random_model(self, store: Store) -> None:
        from safetensors.torch import load_file
        from transformers import AutoModelForCausalLM

        bases = store({name: entry("random", "llama") for name in "ab"})
        first, again = bases.pull("a"), bases.pull("b")
        left, right = (load_file(folder / "model.safetensors") for folder in (first, again))
        assert left.keys() == right.keys()
        assert all(left[name].equal(right[name]) for name in left)
        assert (again / "tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()
        model = AutoModelForCausalLM.from_pretrained(again)
        assert model.config.eos_token_id == model.generation_config.eos_token_id == 2
        assert model.get_input_embeddings().weight.shape == (512, 64)
        assert {file.stat().st_mode & 0o777 for file in again.iterdir()} == {0o644}

    def test_the_thinking_preset(self, store: Store) -> None:
        bases = store({"a": entry("random", "qwen2")})
        bases.pull("a")
        assert bases.tokenizer("a").split_reasoning("x\n</think>\n\ny") == ("x", "y")

    def test_an_unknown_preset_lists_the_known_ones(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(Invalid, match="known: bert, llama, qwen2"):
            store({"a": entry("random", "gpt")}).pull("a")
        assert not any(p.is_dir() for p in (tmp_path / "models" / "base").iterdir())

    def test_a_local_folder_is_copied(self, store: Store, tmp_path: Path, tiny: Path) -> None:
        shutil.copytree(tiny, tmp_path / "mine")
        (tmp_path / "mine" / "pytorch_model.bin").write_bytes(b"pickle")
        bases = store({"a": entry("folder", "mine")})
        place = bases.pull("a")
        assert {p.name for p in place.iterdir()} == {p.name for p in tiny.iterdir()} | {"manifest.json"}
        shutil.rmtree(tmp_path / "mine")
        assert bases.folder("a") == place

    def test_a_folder_in_the_way_is_left_alone(self, store: Store, tmp_path: Path) -> None:
        theirs = tmp_path / "models" / "base" / "a"
        theirs.mkdir(parents=True)
        (theirs / "config.json").write_text("{}")
        with pytest.raises(Conflict, match=r"lacks tokenizer\.json, \*\.safetensors"):
            store({"a": entry("random", "llama")}).pull("a")
        assert [p.name for p in theirs.iterdir()] == ["config.json"]

    def test_a_package_that_is_not_installed(self, store: Store) -> None:
        for name in ("no_such_package", "os/../x", "json"):
            with pytest.raises(Unavailable, match=r"package .*Three ways out"):
                store({"a": entry("package", name)}).pull("a")

    def test_a_source_that_breaks_off_leaves_nothing_in_place(self, store: Store, tmp_path: Path) -> None:
        bases = store({"a": entry("random", "x")}, OneSource(write_half))
        with pytest.raises(Unavailable, match="cannot be used: its folder lacks"):
            bases.pull("a")
        assert not bases.present("a")
        assert not any(p.is_dir() for p in (tmp_path / "models" / "base").iterdir())

    def test_two_processes_pull_once(self, store: Store, tmp_path: Path) -> None:
        store({"a": entry("random", "x")})
        context = multiprocessing.get_context("forkserver")
        start, answers = context.Barrier(3), context.Queue()
        workers = [context.Process(target=_pull, args=(tmp_path, start, answers)) for _ in range(3)]
        try:
            for worker in workers:
                worker.start()
            inodes = {answers.get(timeout=60) for _ in workers}
        finally:
            for worker in workers:
                worker.kill()
                worker.join()
        assert len(inodes) == 1
        assert (tmp_path / "pulls").read_text() == "once\n"


def _counted(spec: BaseModelSpec, target: Path) -> None:
    write_model(spec, target)
    with (target.parents[2] / "pulls").open("a") as pulls:
        pulls.write("once\n")


def _pull(root: Path, start: Any, answers: Any) -> None:
    catalogue = root / "config" / "base_models.yaml"
    bases = FolderBaseModelStore(catalogue, root / "models" / "base", OneSource(_counted))
    start.wait()
    answers.put(bases.pull("a").stat().st_ino)


HASH_OF_RANDOM = """
import hashlib, sys
from pathlib import Path
from app.registries import BASE_MODEL_SOURCES
from app.core.entities.models import BaseModelSpec
folder = Path(sys.argv[2])
BASE_MODEL_SOURCES.load("random")(BaseModelSpec("tiny", "random", sys.argv[1]), folder)
files = sorted(folder.iterdir())
print({file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files})
"""


@pytest.mark.parametrize("preset", ["llama", "bert"])
def test_a_random_model_is_the_same_in_every_process(preset: str, tmp_path: Path) -> None:
    """Else a test that trains one would pass or fail by chance."""
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        command = [sys.executable, "-c", HASH_OF_RANDOM, preset, str(tmp_path / name)]
        made.append(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)
    assert "model.safetensors" in made[0]
    assert made[0].splitlines()[-1] == made[1].splitlines()[-1]


def test_weights_have_a_digest_once_they_are_here(store: Store, tiny: Path) -> None:
    bases = store(
        {"tiny": entry("folder", str(tiny)), "gone": entry("folder", "nowhere"), "later": entry("random", "x")}
    )
    assert bases.digest("tiny")
    assert [bases.digest(name) for name in ("gone", "later", "unknown")] == [None] * 3
    shutil.copytree(tiny, tiny.parent / "models" / "base" / "later")
    assert bases.digest("later") == bases.digest("tiny")
