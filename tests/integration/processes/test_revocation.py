"""A key that one process revokes, or whose owner it disables, opens nothing in another that has just let it in."""

from app import create_app
from app.cli import init_cli
from app.extensions import db
from tests.running_service import wait_until


def test_a_key_revoked_or_disabled_elsewhere_is_refused_here(make_service):
    settings = make_service().settings
    here, there = create_app(settings), create_app(settings)
    init_cli(there)
    runner, client = there.test_cli_runner(), here.test_client()
    text = runner.invoke(args=["keys", "create", "--name", "ci"]).stdout.strip()
    key_id = runner.invoke(args=["keys", "list"]).stdout.split()[0]
    headers = {"Authorization": f"Bearer {text}"}

    def opens():
        return client.get("/api/v1/auth/whoami", headers=headers).status_code == 200

    try:
        assert opens()
        assert runner.invoke(args=["keys", "revoke", key_id]).exit_code == 0
        wait_until(lambda: not opens())
        text = runner.invoke(args=["keys", "create", "--name", "ci"]).stdout.strip()
        headers["Authorization"] = f"Bearer {text}"
        assert opens()
        assert runner.invoke(args=["users", "disable", "ci@default"]).exit_code == 0
        wait_until(lambda: not opens())
    finally:
        for app in (here, there):
            with app.app_context():
                db.engine.dispose()
