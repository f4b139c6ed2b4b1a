"""The matrix of roles and routes: the one place where it is written down.

Each route that wants a caller stands here once, by the part of the service that it belongs to (its scope: what an
API key may be held to) and the least role that may call it. The routes' own ``require``, the OpenAPI document and
every role are checked against it (tests/unit/api/test_access.py). A route that is missing is refused to every key
that has scopes.
"""

from collections.abc import Mapping, Sequence

from app.core.entities.identity import Role, Scope

ROUTES: Mapping[Scope, Mapping[Role, Sequence[str]]] = {
    Scope.DATASETS: {
        Role.VIEWER: (
            *("datasets.list_datasets", "datasets.show", "datasets.list_versions", "datasets.stats"),
            *("datasets.validate", "datasets.preview", "datasets.diff"),
            *("openai_files.list_files", "openai_files.show_file", "openai_files.file_content"),
        ),
        Role.DEVELOPER: (
            *("datasets.upload", "datasets.upload_version", "datasets.delete", "datasets.restore"),
            "datasets.process",
            *("datasets.set_tag", "datasets.remove_tag"),
            *("openai_files.upload_file", "openai_files.delete_file"),
        ),
    },
    Scope.TRAIN: {
        Role.VIEWER: (
            *("train.list_jobs", "train.status", "train.events", "train.event_stream"),
            *("train.metrics", "openai_jobs.list_jobs", "openai_jobs.show_job", "openai_jobs.list_events"),
            *("openai_jobs.list_checkpoints", "jobs.list_jobs", "jobs.show", "jobs.events", "jobs.event_stream"),
        ),
        Role.DEVELOPER: (
            *("train.submit", "train.estimate", "train.cancel", "train.pause", "train.resume", "train.retry"),
            *("openai_jobs.create_job", "openai_jobs.cancel_job", "openai_jobs.pause_job"),
            *("openai_jobs.resume_job", "evaluations.submit", "jobs.submit_chain", "jobs.cancel", "jobs.pause"),
            *("jobs.resume", "jobs.retry"),
        ),
    },
    Scope.INFER: {Role.VIEWER: ("infer.predict", "infer.chat", "openai_answers.chat", "openai_answers.complete")},
    Scope.MODELS: {
        Role.VIEWER: (
            *("models.list_models", "models.show_model", "models.list_versions", "models.list_aliases"),
            *("openai_models.list_models", "openai_models.show_model"),
        ),
        Role.DEVELOPER: ("models.set_alias", "models.remove_alias"),
        Role.ADMIN: ("models.delete_version", "openai_models.delete_model"),
    },
    Scope.ENGINES: {
        Role.OPERATOR: ("engines.list_engines", "engines.load_adapter", "engines.unload_adapter"),
    },
    Scope.USAGE: {Role.DEVELOPER: ("usage.sums",)},
    Scope.WEBHOOKS: {
        Role.ADMIN: (
            *("webhooks.list_webhooks", "webhooks.show_webhook", "webhooks.create_webhook"),
            *("webhooks.change_webhook", "webhooks.remove_webhook", "webhooks.rotate_secret", "webhooks.ping"),
            "webhooks.list_deliveries",
        ),
    },
    Scope.ACCESS: {
        Role.VIEWER: (
            *("auth.whoami", "auth.logout", "auth.change_password", "projects.list_projects"),
            *("keys.list_keys", "keys.create_key", "keys.revoke_key"),
        ),
        Role.DEVELOPER: ("members.list_members", "projects.show_limits"),
        Role.ADMIN: (
            *("members.set_role", "members.remove_member", "members.create_service_account"),
            "audit.entries",
        ),
        Role.OPERATOR: (
            *("projects.create_project", "projects.set_limits", "users.list_users", "users.create_user"),
            *("users.set_password", "users.link", "users.disable", "users.enable"),
        ),
    },
}

# These want no caller: log-ins, public keys, probes, the API page, and /metrics, which has a token of its own.
OPEN = frozenset(
    {
        "auth.token",
        "auth.refresh",
        "well_known.jwks",
        "monitor.health",
        "monitor.ready",
        "docs.docs",
        "docs.errors",
    }
    | {"api-docs.openapi_json", "static", "metrics"}
)

_SCOPES = {
    endpoint: scope for scope, roles in ROUTES.items() for endpoints in roles.values() for endpoint in endpoints
}


def scope_of(endpoint: str | None) -> Scope | None:
    return _SCOPES.get(endpoint or "")
