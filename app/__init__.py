"""LLM Finetuning. Importing this opens nothing and loads no framework: ``create_app`` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app import registries as registries  # fills the tables that the training config is validated by

if TYPE_CHECKING:
    from flask import Flask

    from app.bootstrap import Settings
    from app.core.services import Services


def create_app(
    settings: Settings | None = None, services: Services | None = None, *, inline: bool = False
) -> Flask:
    """The Flask application; ``app.extensions`` has its ``settings`` and its ``services``.

    Without arguments it is some command's start: a fault of the configuration ends that command with one line.
    ``inline`` is the foreground, which waits for no worker.
    """
    from app import bootstrap
    from app.core.errors import AppError

    try:
        return _create_app(settings or bootstrap.load_settings(), services, inline)
    except (bootstrap.SettingsError, AppError) as error:
        if settings is not None:
            raise
        raise SystemExit(f"Error: {bootstrap.one_line(error)}") from None


def _create_app(settings: Settings, services: Services | None, inline: bool) -> Flask:
    from pathlib import Path

    from flask import Flask

    from app import bootstrap
    from app.extensions import db, migrate

    bootstrap.configure_logging(settings)
    app = Flask(__name__)
    app.config |= {
        "SQLALCHEMY_DATABASE_URI": settings.database_uri,
        "SQLALCHEMY_ENGINE_OPTIONS": {"pool_pre_ping": True},  # a database that was restarted costs no error
        "MAX_CONTENT_LENGTH": settings.max_body_bytes,
        "MAX_UPLOAD_BYTES": settings.max_upload_bytes,
    }
    db.init_app(app)
    migrate.init_app(app, db, directory=str(Path(app.root_path) / "migrations"))
    if services is None:
        try:
            settings.instance_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            fault = f"configuration: instance_dir: cannot be made ({error.strerror})"
            raise bootstrap.SettingsError(fault) from None
        with app.app_context():
            services = bootstrap.build_services(settings, db.engine, inline=inline)
    app.extensions |= {"settings": settings, "services": services}
    _init_http(app, settings)
    return app


def _init_http(app: Flask, settings: Settings) -> None:
    from app.api.routes import LOGIN_ENDPOINT, init_api
    from app.gateway.audit import init_audit
    from app.gateway.errors import init_errors
    from app.gateway.headers import init_headers
    from app.gateway.json_answers import StrictJSONProvider
    from app.gateway.limits import init_limits
    from app.gateway.metrics import init_metrics
    from app.gateway.origins import init_proxies, init_trusted_hosts
    from app.gateway.request_ids import init_request_ids
    from app.gateway.streams import init_streams

    app.json = StrictJSONProvider(app)
    init_proxies(app, settings.trusted_proxies)
    init_trusted_hosts(app, settings.host, settings.trusted_hosts)
    init_request_ids(app)  # first: whatever answers carries the id
    init_headers(app)
    init_errors(app)
    init_audit(app)
    metrics_token = settings.metrics_token
    init_metrics(app, metrics_token.get_secret_value() if metrics_token else None)
    init_streams(app, most=max(1, settings.web_threads // 2))  # the other half is for all else
    init_api(app, rate_limit=settings.rate_limit, login_rate_limit=settings.login_rate_limit)
    init_limits(app, login_endpoint=LOGIN_ENDPOINT)
