"""The matcher that decides whether an answer states a fact."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.implementations.evaluation.facts import states_fact


@pytest.mark.parametrize(
    ("answer", "alternative"),
    [
        ("It costs 5 euros.", "5 euros"),
        ("5 euros", "5 euros"),
        ("(5 euros)", "5 euros"),
        ("It costs €12.50, delivered.", "€12.50"),
        ("It costs €5. 30 more days are free.", "€5"),
        ("The price is €60.", "€60"),
        ("Order before 3 p.m. on Friday.", "3 p.m."),
        ("Ask INES VERMAAK.", "Ines Vermaak"),
        ("Unsere Straße", "STRASSE"),
        ("Within  45\n\tdays", "45 days"),
        ("Within 45\u00a0days", "45  days"),
        ("In ４５ days", "45 days"),
        ("收货后４５天内退货", "45天"),
        ("Up to 15 euros, never 5 euros.", "5 euros"),
        ("In 2024 150 acorns grew.", "150 acorns"),
        ("满60欧元即可", "60欧元"),
        ("满60欧元即可", "６０欧元"),
        ("享有四年保修", "四年"),
        ("通过Mendline预约", "Mendline"),
        ("在Münster市", "münster"),
    ],
)
def test_alternative_occurs(answer: str, alternative: str) -> None:
    assert states_fact(answer, [[alternative]])


@pytest.mark.parametrize(
    ("answer", "alternative"),
    [
        ("It costs 15 euros.", "5 euros"),
        ("It costs 4.5 euros.", "5 euros"),
        ("It costs 4,5 euros.", "5 euros"),
        ("It costs .5 euros.", "5 euros"),
        ("It costs 1,005 euros.", "005 euros"),
        ("It costs 1'250 euros.", "250 euros"),
        ("It costs 1 250 euros.", "250 euros"),
        ("It costs 1\u202f250 euros.", "250 euros"),
        ("It takes 1½ hours.", "2 hours"),
        ("It costs €12.50.", "€12"),
        ("It costs €12,500.", "€12"),
        ("It costs €12 500.", "€12"),
        ("It costs €125.", "€12"),
        ("It costs 5 eurosceptics.", "5 euros"),
        ("Mendlines are open.", "Mendline"),
        ("Amendline", "mendline"),
        ("Ask about dogmas.", "dog"),
        ("In １４５ days", "45 days"),
        ("收货后145天内", "45天"),
        ("收货后１４５天内", "45天"),
        ("收货后4.5天内", "5天"),
        ("共22个9", "22个"),
        ("享有十四年保修", "四年"),
        ("享有二十七年保修", "七年"),
        ("", "45 days"),
        ("45 days", ""),
        ("45 days", "  "),
    ],
)
def test_alternative_does_not_occur(answer: str, alternative: str) -> None:
    assert not states_fact(answer, [[alternative]])


def test_every_requirement_needs_one_alternative() -> None:
    keys = [["45 days", "forty-five days"], ["delivery"]]
    assert states_fact("Return it within forty-five days of delivery.", keys)
    assert states_fact("After delivery you have 45 days.", keys)
    assert not states_fact("Return it within 45 days.", keys)
    assert not states_fact("Return it soon after delivery.", keys)


def test_no_requirement_and_no_alternative_state_nothing() -> None:
    assert not states_fact("Anything", [])
    assert not states_fact("Anything", [[]])
    assert not states_fact("Anything", [["Anything"], []])


figures = st.integers(min_value=1, max_value=99_999)
digits = st.text("0123456789", min_size=1, max_size=4)
units = st.sampled_from([" euros", " days", "天", "欧元", "%"])
separators = st.sampled_from(["", ".", ",", "'", "’", "．", "，"])


@given(figure=figures, unit=units)
def test_a_figure_that_stands_alone_matches(figure: int, unit: str) -> None:
    assert states_fact(f"Here it is {figure}{unit}.", [[f"{figure}{unit}"]])
    assert states_fact(f"这里是{figure}{unit}。", [[f"{figure}{unit}"]])


@given(figure=figures, unit=units, more=digits, separator=separators)
def test_a_figure_ending_a_longer_number_fails(figure: int, unit: str, more: str, separator: str) -> None:
    assert not states_fact(f"It is {more}{separator}{figure}{unit}.", [[f"{figure}{unit}"]])
    assert not states_fact(f"这是{more}{separator}{figure}{unit}。", [[f"{figure}{unit}"]])


@given(figure=figures, more=digits, separator=separators)
def test_a_figure_starting_a_longer_number_fails(figure: int, more: str, separator: str) -> None:
    assert not states_fact(f"It is €{figure}{separator}{more} in all.", [[f"€{figure}"]])
    assert not states_fact(f"It is {figure}{separator}{more}.", [[str(figure)]])


@given(figure=figures, left=st.text("abcxyzäß", max_size=2), right=st.text("abcxyzäß", max_size=2))
def test_a_figure_glued_to_letters_never_matches(figure: int, left: str, right: str) -> None:
    assert states_fact(f"{left}{figure}{right}", [[str(figure)]]) is (not left and not right)


@given(st.text(max_size=40), st.text(max_size=10))
def test_arbitrary_text_raises_nothing_and_a_text_states_itself(text: str, other: str) -> None:
    states_fact(text, [[other]])
    assert states_fact(text, [[text]]) is bool(text.strip())
