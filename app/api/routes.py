"""Every route, on one flask-smorest Api."""

from flask import Flask

from app.api.audit.routes import blueprint as audit
from app.api.auth.routes import blueprint as auth
from app.api.auth.routes import well_known
from app.api.datasets.routes import blueprint as datasets
from app.api.docs.description import DESCRIPTION
from app.api.docs.path_parameters import PATH_PARAMETERS
from app.api.docs.routes import blueprint as docs
from app.api.engines.routes import blueprint as engines
from app.api.evaluations.routes import blueprint as evaluations
from app.api.infer.routes import blueprint as infer
from app.api.jobs.routes import blueprint as jobs
from app.api.keys.routes import blueprint as keys
from app.api.models.routes import blueprint as models
from app.api.monitor.routes import blueprint as monitor
from app.api.openai.answer_routes import blueprint as openai_answers
from app.api.openai.file_routes import blueprint as openai_files
from app.api.openai.job_routes import blueprint as openai_jobs
from app.api.openai.model_routes import blueprint as openai_models
from app.api.projects.routes import members, projects
from app.api.train.routes import blueprint as train
from app.api.train.schemas import document_training_config
from app.api.usage.routes import blueprint as usage
from app.api.users.routes import blueprint as users
from app.api.webhooks.routes import blueprint as webhooks
from app.gateway.openapi import Api, PathParameters

LOGIN_ENDPOINT = "auth.token"
BEARER = (
    "An access token (JWT) from `POST /api/v1/auth/token`, or an API key (`llmft_…`) from `POST /api/v1/keys` or "
    "`flask keys create`. An operation's requirement names the least role that it wants."
)


def init_api(app: Flask, *, rate_limit: str, login_rate_limit: str) -> None:
    description = DESCRIPTION.format(rate_limit=rate_limit, login_rate_limit=login_rate_limit)
    app.config |= {
        "API_TITLE": "LLM Finetuning",
        "API_VERSION": "1.0",
        "OPENAPI_VERSION": "3.1.0",
        "OPENAPI_URL_PREFIX": "/",
        "API_SPEC_OPTIONS": {"info": {"description": description}},
    }
    api = Api(app, spec_kwargs={"flask_plugin": PathParameters(PATH_PARAMETERS)})
    api.spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer", "description": BEARER})
    document_training_config(api)
    for blueprint in (
        *(auth, well_known, keys, members, projects, users),
        *(datasets, train, evaluations, jobs, infer, models, engines, usage, webhooks, audit, monitor),
        *(openai_answers, openai_models, openai_files, openai_jobs),
    ):
        api.register_blueprint(blueprint)
    app.register_blueprint(docs)
