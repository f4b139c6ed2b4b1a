"""The API page: Swagger UI from our own files, so that no request leaves the host."""

from flask import Blueprint, render_template

blueprint = Blueprint("docs", __name__)


@blueprint.get("/docs")
def docs() -> str:
    return render_template("docs.html")
