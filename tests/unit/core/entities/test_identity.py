"""Roles."""

import pytest

from app.core.entities.identity import Role


@pytest.mark.parametrize(
    ("role", "covered"),
    [
        (Role.VIEWER, {Role.VIEWER}),
        (Role.DEVELOPER, {Role.VIEWER, Role.DEVELOPER}),
        (Role.ADMIN, {Role.VIEWER, Role.DEVELOPER, Role.ADMIN}),
        (Role.OPERATOR, set(Role)),
    ],
)
def test_a_role_includes_those_below_it(role: Role, covered: set[Role]) -> None:
    assert {other for other in Role if role.covers(other)} == covered
