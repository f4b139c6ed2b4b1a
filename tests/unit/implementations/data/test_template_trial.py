"""A template that would not end, or fill the memory, is met in a child process and nowhere else."""

import json
from pathlib import Path

import pytest

from app.core.errors import Invalid
from app.implementations.data import template_trial
from app.implementations.data.encoder_tokenizer import load_tokenizer
from app.implementations.data.template_trial import TRIED, try_once, try_template
from tests.chat_families import FAMILIES, TEMPLATES

LONG = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
HARMFUL = {
    "a range that the sandbox blocks": ("{% for x in range(10**9) %}{{ x }}{% endfor %}", "renders not one"),
    "loops in loops": (LONG, "processor time"),
    "a loop for some conversations only": (
        f"{{% if messages | length > 1 %}}{LONG}{{% endif %}}ok",
        "processor time",
    ),
    "a number without end": ("{{ 10**(10**10) }}", "processor time|MB"),
    "a text of ten billion letters": ("{{ 'a' * 10**10 }}", "MB"),
    "one where there are tools": ("{% if tools %}{{ 'a' * 10**10 }}{% endif %}", "MB"),
    "a text that grows": (
        "{% set n = namespace(t='a') %}{% for x in range(40) %}{% set n.t = n.t ~ n.t %}{% endfor %}{{ n.t }}",
        "MB|processor time",  # where memory is slow to come, its time is over first
    ),
    "a long output": ("{% for x in range(99) %}{{ 'a' * 99999 }}{% endfor %}", "characters"),
    "a macro that calls itself": ("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", "renders not one"),
    "brackets in brackets": ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested too deep|fails"),
    "a way out of the sandbox": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "renders not one"),
}


@pytest.mark.parametrize(("template", "says"), HARMFUL.values(), ids=HARMFUL.keys())
def test_a_harmful_template_is_refused(template: str, says: str) -> None:
    with pytest.raises(Invalid, match=says) as caught:
        try_template(template)
    assert caught.value.code == "template_refused"


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
def test_the_families_templates_pass(name: str) -> None:
    try_template((TEMPLATES / f"{name}.jinja").read_text("utf-8"))


def test_what_is_no_jinja_is_left_to_who_loads_it() -> None:
    try_template("{% for m in messages %}")


def test_the_limits_are_the_childs_alone() -> None:
    import resource

    before = [resource.getrlimit(kind) for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU)]
    with pytest.raises(Invalid):
        try_template("{{ 'a' * 10**10 }}")
    assert [resource.getrlimit(kind) for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU)] == before


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The templates that were tried; none is known to this process."""
    tried: list[str] = []

    def reason(text: str) -> str:
        tried.append(text)
        return "it is bad" if "bad" in text else ""

    monkeypatch.setattr(template_trial, "_reason", reason)
    template_trial._known.cache_clear()
    return tried


def next_process() -> None:
    template_trial._known.cache_clear()


def test_the_outcome_is_remembered_by_hash(tmp_path: Path, trials: list[str]) -> None:
    for text in ("good", "good", "bad", "bad", "good 2"):
        if text == "bad":
            with pytest.raises(Invalid, match="it is bad"):
                try_once(text, tmp_path / TRIED)
        else:
            try_once(text, tmp_path / TRIED)
    assert trials == ["good", "bad", "good 2"]
    next_process()
    try_once("good", tmp_path / TRIED)
    with pytest.raises(Invalid, match="it is bad"):
        try_once("bad", tmp_path / TRIED)
    assert trials == ["good", "bad", "good 2"]


@pytest.mark.parametrize("content", ["[1]", "not JSON", '{"a": 1}'])
def test_a_damaged_memory_is_written_anew(tmp_path: Path, trials: list[str], content: str) -> None:
    (tmp_path / TRIED).write_text(content)
    try_once("good", tmp_path / TRIED)
    assert trials == ["good"]
    assert list(json.loads((tmp_path / TRIED).read_text()).values()) == [""]


def test_a_place_that_cannot_be_written_remembers_nothing(tmp_path: Path, trials: list[str]) -> None:
    try_once("good", tmp_path / "gone" / TRIED)
    next_process()
    try_once("good", tmp_path / "gone" / TRIED)
    assert trials == ["good", "good"]


def test_a_model_is_loaded_after_its_template_was_tried(
    chatml_folder: Path, tmp_path: Path, trials: list[str]
) -> None:
    folder = tmp_path / "base" / "model"
    folder.mkdir(parents=True)
    for file in chatml_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    load_tokenizer(folder)
    assert trials == [(folder / "chat_template.jinja").read_text()]
    assert (tmp_path / "base" / TRIED).is_file()
    (folder / "chat_template.jinja").write_text("bad {{ 10**10**10 }}")
    with pytest.raises(Invalid) as caught:
        load_tokenizer(folder)
    assert caught.value.code == "template_refused"
