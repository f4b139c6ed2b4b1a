"""``flask users``, ``flask projects`` and ``flask keys``: who may call the service."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from app.cli.base import PROJECT, Commands, operator_in, services
from app.core.entities.identity import MEMBER_ROLES, Principal, Role, Scope

users = Commands("users", help="People who may call the service.")
projects = Commands("projects", help="Projects, and who works in them.")
keys = Commands("keys", help="API keys.")

_LIMIT = click.IntRange(0)
_MEMBER_ROLE = click.Choice([role.value for role in MEMBER_ROLES])
_PASSWORD_STDIN = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of standard input."
)


@users.command("create")
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True)
@PROJECT
@_PASSWORD_STDIN
@click.option("--subject", help="Instead of a password: what the external issuer's tokens call them.")
def create_user(name: str, role: str, project: str, password_stdin: bool, subject: str | None) -> None:
    """Make a user NAME. Without --password-stdin or --subject it asks for the password.

    An operator may do what is the host's (engines, data/raw, projects, users), and is an admin of the project.
    """
    accounts = services().accounts
    password = None if subject and not password_stdin else _password(password_stdin)
    user = accounts.create_user(name, password, Role(role), project, subject)
    click.echo(f"created {user.username} ({role})")


@users.command("list")
def list_users() -> None:
    """List users and their roles."""
    for user, memberships in services().accounts.users():
        roles = ", ".join(f"{m.role.value} of {m.project_id}" for m in memberships)
        roles += ", operator" if user.is_operator else ""
        roles += ", disabled" if user.disabled_at else ""
        click.echo(f"{user.username:24} {roles:32} {user.created_at:%Y-%m-%d %H:%M}")


@users.command("sign-out")
@click.argument("name")
def sign_out(name: str) -> None:
    """End every session of the user NAME. Keys stay: `flask keys revoke`."""
    click.echo(f"ended {services().accounts.sign_out(name)} session(s) of {name}")


@users.command("set-password")
@click.argument("name")
@_PASSWORD_STDIN
def set_password(name: str, password_stdin: bool) -> None:
    """Give the user NAME another password, and end their sessions."""
    services().accounts.set_password(name, _password(password_stdin))


@users.command("link")
@click.argument("name")
@click.argument("subject")
def link(name: str, subject: str) -> None:
    """Take the external issuer's tokens for SUBJECT as those of the user NAME."""
    click.echo(f"{name} is {services().accounts.link(name, subject).external_id}")


@users.command("unlink")
@click.argument("name")
def unlink(name: str) -> None:
    """Take no token of the external issuer as one of the user NAME."""
    services().accounts.link(name, None)


@users.command("disable")
@click.argument("name")
def disable(name: str) -> None:
    """Let the user or service account NAME call no more: sessions and keys end, what they made stays."""
    services().accounts.disable(name)


@users.command("enable")
@click.argument("name")
def enable(name: str) -> None:
    """Let the user NAME log in again. Keys stay revoked."""
    services().accounts.enable(name)


@projects.command("create")
@click.argument("project_id", metavar="ID")
@click.option("--admin", required=True, help="A user's name, who becomes its first admin.")
def create_project(project_id: str, admin: str) -> None:
    """Make a project ID, of small letters, digits and dashes."""
    click.echo(f"created {services().projects.create(project_id, admin).id}")


@projects.command("list")
def list_projects() -> None:
    """List projects and their members."""
    found = services().projects
    for project in found.projects(Principal.host()):
        members = found.members(operator_in(project.id))
        roles = ", ".join(f"{member.user.username} ({member.role.value})" for member in members)
        click.echo(f"{project.id:24} {roles}")


@projects.command("set-role")
@click.argument("project_id", metavar="ID")
@click.argument("username")
@click.argument("role", type=_MEMBER_ROLE)
def set_role(project_id: str, username: str, role: str) -> None:
    """Give USERNAME a role in the project ID; one who is no member becomes it."""
    services().projects.set_role(operator_in(project_id), username, Role(role))


@projects.command("remove-member")
@click.argument("project_id", metavar="ID")
@click.argument("username")
def remove_member(project_id: str, username: str) -> None:
    """Take USERNAME out of the project ID."""
    services().projects.remove(operator_in(project_id), username)


@projects.command("limits")
@click.argument("project_id", metavar="ID")
@click.option("--running", type=_LIMIT, help="Jobs that train at once.")
@click.option("--queued", type=_LIMIT, help="Jobs that wait.")
@click.option("--requests", type=_LIMIT, help="Requests in a minute.")
@click.option("--tokens", type=_LIMIT, help="Tokens of prompts and answers in a minute.")
@click.option("--storage-bytes", type=_LIMIT, help="Bytes of datasets and published versions.")
@click.option("--versions", type=_LIMIT, help="Published versions.")
def limits(project_id: str, **given: int | None) -> None:
    """Show the limits of the project ID, or change them; 0: what the service's settings say."""
    changes = {name: value or None for name, value in given.items() if value is not None}
    report = services().limits.change(operator_in(project_id), project_id, changes)
    used = asdict(report.used)
    for name, value in asdict(report.limits).items():
        has = f"{used[name]:,} of " if name in used else ""
        click.echo(f"{name:14} {has}{'any number' if value is None else f'{value:,}'}")


@keys.command("create")
@PROJECT
@click.option("--name", required=True, help="To know it by: ci, grafana …")
@click.option("--account", help="Of this service account; without it, of the one that is called as the key is.")
@click.option(
    "--role", type=_MEMBER_ROLE, default="developer", show_default=True, help="Of an account that is made for it."
)
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([scope.value for scope in Scope]),
    multiple=True,
    help="May be repeated; else all.",
)
@click.option("--days", type=click.IntRange(1), help="That it is good for; else until it is revoked.")
def create_key(
    project: str, name: str, account: str | None, role: str, scopes: tuple[str, ...], days: int | None
) -> str:
    """Make an API key of a service account, and print it. An account that is not there is made."""
    found, operator = services(), operator_in(project)
    username = f"{account or name}@{project}"
    if username not in {member.user.username for member in found.projects.members(operator)}:
        found.projects.create_service_account(operator, account or name, Role(role))
    key, text = found.api_keys.create(
        operator, name, username=username, scopes=[Scope(scope) for scope in scopes], days=days
    )
    click.echo(text)
    return key.id


@keys.command("list")
@PROJECT
def list_keys(project: str) -> None:
    """List the project's keys, newest first."""
    found, operator = services(), operator_in(project)
    names = {member.user.id: member.user.username for member in found.projects.members(operator)}
    for key in found.api_keys.keys(operator):
        state = "revoked" if key.revoked_at else f"until {key.expires_at:%Y-%m-%d}" if key.expires_at else "good"
        used = f"used {key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used"
        scopes = ",".join(key.scopes) or "all"
        owner = names.get(key.user_id, "who left")
        click.echo(f"{key.id}  {key.hint}  {key.name:16} {owner:24} {scopes:16} {state:16} {used}")


@keys.command("revoke")
@PROJECT
@click.argument("key_id")
def revoke_key(project: str, key_id: str) -> None:
    """Revoke the key KEY_ID: within a second it opens nothing."""
    services().api_keys.revoke(operator_in(project), key_id)


@keys.command("rotate-signing")
def rotate_signing() -> None:
    """Sign access tokens with a new key. Those that are out stay good until they expire."""
    click.echo(services().api_keys.rotate_signing_key())


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    entered: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return entered
