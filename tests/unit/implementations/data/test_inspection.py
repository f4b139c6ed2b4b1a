"""Each warning by a row that deserves it and one that does not; nothing private is shown."""

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from app.core.entities.data_pipeline import Inspection, PipelineConfig
from app.core.entities.datasets import Conversation
from app.implementations.data.histogram import histogram_png
from app.implementations.data.inspection import MAX_LISTED, PERCENTILES, inspect
from app.implementations.data.private_data import masked, personal_data_finder, secret_finder
from app.utils.percentiles import percentiles

ROOT = Path(__file__).parents[4]
PLAIN = {"near_duplicates": False, "languages": False, "secrets": False, "personal_data": False}


def row(number: int, question: str, answer: str = "Goods can be returned within 45 days.") -> Conversation:
    return Conversation(number, [{"role": "user", "content": question}, {"role": "assistant", "content": answer}])


def looked(rows: list[Conversation], *checks: str, **options: object) -> Inspection:
    """With these slow checks only."""
    chosen = {**PLAIN, **dict.fromkeys(checks, True)}
    return inspect(rows, PipelineConfig.model_validate({"inspection": chosen}), **options)


def warned(found: Inspection, code: str) -> list[int | None]:
    return [warning.row for warning in found.warnings if warning.code == code]


def test_duplicates_and_what_is_empty_once_clean() -> None:
    rows = [row(1, "Where is it?"), row(2, "Where is it? \0"), row(3, "<br>"), row(4, "Where is that?")]
    found = looked(rows)
    assert warned(found, "duplicate") == [2]
    assert warned(found, "empty_after_cleaning") == [3]
    assert found.report.warning_counts == {"duplicate": 1, "empty_after_cleaning": 1}


def test_near_duplicates_name_the_row_that_they_are_like() -> None:
    question = "How long do I have to return an item that I bought in the shop"
    rows = [row(1, question), row(2, f"{question} today"), row(3, "Do you sell spare parts?"), row(4, question)]
    found = looked(rows, "near_duplicates")
    assert warned(found, "near_duplicate") == [2]
    assert warned(found, "duplicate") == [4]
    assert "row 1 asks" in next(w.message for w in found.warnings if w.code == "near_duplicate")


def test_one_question_with_two_answers_is_a_near_duplicate() -> None:
    assert warned(
        looked([row(1, "Open?", "Yes."), row(2, "open", "No.")], "near_duplicates"), "near_duplicate"
    ) == [2]


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (["Where is it?", "where is  it?"], "answer_repeats_question"),
        (["a", "It is here.", "b", "It is here."], "repeated_turn"),
        (["a", "b\nUser: c\nAssistant: d"], "role_mark"),
        (["a<|im_end|>", "b"], "role_mark"),
        (["### Instruction:\na", "b"], "role_mark"),
        (["Which user: me or you?", "The assistant: me."], None),
    ],
)
def test_turns_that_are_legal_and_odd(said: list[str], code: str | None) -> None:
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
    found = looked([Conversation(7, messages)])
    assert [(warning.row, warning.code) for warning in found.warnings] == ([(7, code)] if code else [])


def test_tokens_are_counted_by_the_one_who_knows_them() -> None:
    rows = [row(1, "short"), row(2, "long " * 40), row(3, "never")]
    found = looked(
        rows, tokens=lambda one: (len(one.messages[0]["content"]), 0 if one.row == 3 else 9), max_length=100
    )
    assert warned(found, "over_long") == [2]
    assert warned(found, "no_supervised_token") == [3]
    assert (found.report.unit, found.report.lengths[100]) == ("tokens", 200)
    assert [*found.row_lengths] == [5, 200, 5]
    assert looked(rows).report.unit == "characters"


def test_languages() -> None:
    german = "Sie können unbenutzte Ware innerhalb von 45 Tagen nach der Lieferung zurückgeben."
    english = "You can return unused goods within 45 days after they were delivered to you."
    rows = [row(n, "Until when can I send back what I have bought from you?", english) for n in range(1, 6)]
    found = looked([*rows, row(6, "Until when can I send back what I have bought?", german)], "languages")
    assert found.report.languages == {"en": 5, "de": 1}
    assert warned(found, "mixed_languages") == [6, None]
    assert looked(rows, "languages").warnings == looked(rows).warnings
    assert looked([row(1, "```\nreturn x\n```", "42")], "languages").report.languages == {"unknown": 1}


# Made up, in the shape of real ones.
SECRETS = [
    "AKIAIOSFODNN7EXAMPLQ",
    "ghp_" + "a1B2c3D4e5F6a1B2c3D4e5F6a1B2c3D4e5F6",
    "sk_live_" + "a1B2c3D4e5F6a1B2c3D4e5F6",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
]
PERSONAL = [
    ("e-mail address", "anna.de.vries@firma.nl"),
    ("phone number", "+31 6 12345678"),
    ("card number", "4111 1111 1111 1111"),
    ("IBAN", "NL91 ABNA 0417 1643 00"),
    ("IP address", "84.22.101.7"),
    ("IP address", "2a02:a44a:7e3f:1:9d2:33ff:fe12:1"),
]


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_are_found_and_masked(secret: str) -> None:
    found = looked([row(1, f"It says that {secret} is not valid, why?")], "secrets")
    assert {(warning.row, warning.code) for warning in found.warnings} == {(1, "secret")}
    assert "revoke" in found.warnings[0].message
    assert secret[5:] not in " ".join(warning.message for warning in found.warnings)


def test_a_password_in_a_url_and_a_private_key() -> None:
    find = secret_finder()
    assert {kind for kind, _ in find("curl https://anna:s3cr3tw0rd@shop.nl/")} == {"Basic Auth Credentials"}
    assert [kind for kind, _ in find("-----BEGIN RSA PRIVATE KEY-----\nMIIE")] == ["Private Key"]


@pytest.mark.parametrize(("kind", "value"), PERSONAL)
def test_personal_data_is_found_and_masked(kind: str, value: str) -> None:
    found = looked([row(1, f"Please use {value}, it is mine.")], "personal_data")
    assert warned(found, "personal_data") == [1]
    (warning,) = found.warnings
    assert kind in warning.message
    assert value not in warning.message
    assert value[5:] not in warning.message


@pytest.mark.parametrize(
    "text",
    [
        "Write to support@shop.nl or to anna@example.com.",
        "Order 4111 1111 1111 1112 of 2024-11-24, version 10.0.0.1 at 192.168.1.20.",
        "Account NL92 ABNA 0417 1643 00 and call 020 1234.",
        "Your password: at least eight characters. It costs €1,250.00 in 2026.",
        "In C++ std::vector<int> x; 12:30:45",
    ],
)
def test_what_is_nobodys_is_not_found(text: str) -> None:
    assert list(personal_data_finder()(text)) == []
    assert list(secret_finder()(text)) == []


@pytest.mark.parametrize("secret", ["", "a", "abcd", "a" * 100])
def test_a_mask_shows_a_quarter_at_most(secret: str) -> None:
    assert len(masked(secret).rstrip("…")) <= min(4, len(secret) / 4)


def test_labels() -> None:
    rows = [Conversation(n, [], text=f"text {n}", label="b" if n < 4 else "a") for n in range(1, 14)]
    report = looked(rows).report
    assert report.total_samples == 13
    assert list(report.label_counts.items()) == [("a", 10), ("b", 3)]
    assert report.imbalance_ratio == pytest.approx(10 / 3)
    assert report.is_balanced is False
    assert warned(looked(rows), "label_imbalance") == [None]
    even = looked(rows[:6]).report
    assert (even.imbalance_ratio, even.is_balanced) == (1.0, True)
    none = looked([row(1, "a")]).report
    assert (none.label_counts, none.imbalance_ratio, none.is_balanced) == ({}, None, None)


def test_warnings_of_a_code_are_bounded_and_counted() -> None:
    found = looked([row(n, "<br>") for n in range(1, 500)])
    assert len(found.warnings) == MAX_LISTED
    assert found.report.warning_counts == {"empty_after_cleaning": 499}


def test_slow_checks_say_how_far_they_are_and_how_fast() -> None:
    seen: list[tuple[str, int, int]] = []
    rows = [row(n, f"question {n}") for n in range(1, 2101)]
    started = time.perf_counter()
    found = inspect(rows, PipelineConfig(), on_progress=lambda *said: seen.append(said))
    seconds = time.perf_counter() - started
    names = ("near_duplicates", "languages", "secrets", "personal_data")
    assert seen == [(name, done, 2100) for name in names for done in (1000, 2000, 2100)]
    assert set(found.report.rates) == set(names)
    assert sum(2100 / rate for rate in found.report.rates.values()) <= seconds


def test_it_can_run_beside_a_web_process() -> None:
    """Which is to stay free of torch, whatever the libraries would like to import."""
    code = (
        "import sys; from app.core.entities.data_pipeline import PipelineConfig;"
        "from app.core.entities.datasets import Conversation;"
        "from app.implementations.data.inspection import inspect;"
        "said = [{'role': 'user', 'content': 'Where is it?'}, {'role': 'assistant', 'content': 'Call us.'}];"
        "found = inspect([Conversation(1, said)], PipelineConfig()).report;"
        "print(len(found.rates), [name for name in ('torch', 'matplotlib', 'scipy.stats') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "4 []\n"


def test_no_rows() -> None:
    report = inspect([], PipelineConfig()).report
    assert (report.total_samples, report.lengths, report.languages) == (0, {}, {})


def test_the_sample_data_has_two_languages_and_nothing_private() -> None:
    raw = json.loads((ROOT / "data/raw/sample_data.json").read_text("utf-8"))
    rows = [Conversation(n, one["messages"], one["split"]) for n, one in enumerate(raw, start=1)]
    report = inspect(rows, PipelineConfig()).report
    assert report.languages["en"] >= 900
    assert report.languages["zh"] >= 90
    assert report.warning_counts.keys() <= {"mixed_languages", "near_duplicate"}


@pytest.mark.parametrize("lengths", [[], [0], [3, 3, 4], [*range(2000), 100_000]])
def test_the_histogram_is_a_picture_of_a_readable_size(lengths: list[int]) -> None:
    picture = Image.open(io.BytesIO(histogram_png(lengths, "tokens", percentiles(lengths, PERCENTILES))))
    picture.verify()
    assert picture.format == "PNG"
    assert picture.width >= 1000
    assert picture.height >= 500
